"""Stamps of files: numbers that change when a file does, by its path, its size and the times of its last changes.

``make`` and ``git`` know files again likewise. Legend: N images.
"""

import os
import time
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from d3hr.data.members import Member
from d3hr.data.plain_folder import stamp_of

RACE_NS = 2_000_000_000
"""A file that changed so shortly before it is looked at may change again without another time of change: it is not known again."""
Stamps = NDArray[np.uint64]
"""[N]; 0 is the stamp of a file of which it cannot be told whether it changes."""


@runtime_checkable
class Files(Protocol):
    """A source whose images are files, or members of archives."""

    def stamps(self) -> Stamps:
        """Return the stamp of each image, [N]."""


def stamps_of(images: object, total: int) -> Stamps:
    """Return the stamps [N] of the images of a source; zeros where they are no files."""
    return images.stamps() if isinstance(images, Files) else np.zeros(total, dtype=np.uint64)


def latest_change() -> int:
    """Return the time, in nanoseconds, until which a file must have changed last to have a stamp."""
    return time.time_ns() - RACE_NS


def stamps_at(places: Iterable[str | Member], total: int) -> Stamps:
    """Return the stamps [N] of files on the disk, or in archives, whose members are known again by the archive."""
    latest = latest_change()
    return np.fromiter((_stamp_at(place, latest) for place in places), dtype=np.uint64, count=total)


def _stamp_at(place: str | Member, latest: int) -> int:
    try:
        status = os.stat(place.archive.path if isinstance(place, Member) else place)  # noqa: PTH116 (a Path for each of a million takes long)
    except (OSError, ValueError):
        return 0
    return stamp_of(str(place), status, latest)
