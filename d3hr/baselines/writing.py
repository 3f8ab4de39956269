"""Writes a baseline as a set like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from d3hr.data import ImageData
from d3hr.errors import DataError, SettingsError, listed
from d3hr.progress import Progress
from d3hr.set_writing import Origin, write_set
from d3hr.staging import StagedFolder
from d3hr.storage import DistilledSet


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
    with StagedFolder(out, origin.key()) as stage:
        if stage.finished:
            return DistilledSet.load(out)
        return write_set(stage, origin, lambda names: ((name, images_of(name)) for name in names), progress=progress)


def real_origin(method: str, images: ImageData, *, ipc: int, settings: Mapping[str, Any]) -> Origin:
    """Return the origin of a set that consists of real images, at the size that ``images`` are delivered in."""
    return Origin(
        method=method,
        class_names=images.class_names,
        ipc=ipc,
        image_size=images.image_size,
        settings=settings,
        data=source_of(images),
        prior={},
        real_counts=images.counts,
    )


def source_of(images: ImageData) -> dict[str, Any]:
    """Return what a manifest tells of the real images."""
    return {"source": images.source, "split": images.split, "fingerprint": images.fingerprint}


def require_images_per_class(ipc: int) -> None:
    """Raise :class:`SettingsError` unless there is at least one image per class."""
    if ipc < 1:
        raise SettingsError("--ipc must be at least 1.", found=f"{ipc}", do="give the number of images per class.")


def require_real_images(images: ImageData, count: int) -> None:
    """Raise :class:`DataError` unless every class has at least ``count`` images."""
    small = [f"{name} ({found})" for name, found in images.counts.items() if found < count]
    if small:
        raise DataError(f"Some classes have fewer than {count} real images to draw.", found=listed(small), do="use a lower --ipc.")
