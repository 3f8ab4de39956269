"""Writes a baseline as a set like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from d3hr.errors import SettingsError
from d3hr.progress import Progress
from d3hr.staging import StagedFolder
from d3hr.storage import DistilledSet, Origin, write_set


def write_baseline(out: str | Path, origin: Origin, images_of: Callable[[str], Tensor], progress: Progress) -> DistilledSet:
    """Write the set that ``origin`` tells of, or return it where it is finished.

    Args:
        out: folder to write.
        origin: what the set is.
        images_of: gives the images of one class, float [K, 3, H, W] in [-1, 1].
        progress: where to report.

    Raises:
        OutputError: ``out`` holds something else.
    """
    stage = StagedFolder(out, origin.key())
    return DistilledSet.load(out) if stage.finished else write_set(stage, origin, images_of, progress=progress)


def require_images_per_class(ipc: int) -> None:
    """Raise :class:`SettingsError` unless there is at least one image per class."""
    if ipc < 1:
        raise SettingsError("--ipc must be at least 1.", found=f"{ipc}", do="give the number of images per class.")
