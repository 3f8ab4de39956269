"""Keeps what a scan found in image files, so that files which have not changed since are not read and decoded again.

A file is known again by its path, its size and the times of its last changes, as ``make`` and ``git`` know one; its content hash stays
what it was. Legend: N images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d3hr.fileio.atomic import load_if_valid, read_checkpoint, write_tensors
from d3hr.fileio.locking import locked
from d3hr.progress import Progress

CACHE_VARIABLE = "D3HR_CACHE"
"""Environment variable that names the folder of the cache; empty, nothing is kept."""
FACTS = np.dtype([("stamp", "<u8"), ("content", "u1", 32), ("width", "<i4"), ("height", "<i4"), ("peak", "<i4"), ("frames", "?")])
"""What is found in one image: its stamp, SHA-256, size in pixels, the largest value of a 16-bit picture whose file does not tell its range
(else -1), and whether it has several frames. 53 bytes."""
Facts = NDArray[Any]
"""Structured array [N] of :data:`FACTS`; a stamp of 0 is that of a file which is not known."""
RACE_NS = 2_000_000_000
"""A file that changed so shortly before it is looked at may change again without another time of change: it is not kept."""


@dataclass(frozen=True)
class ScanCache:
    """The facts of one source's images, in a file of their own."""

    file: Path | None
    """None where nothing is kept."""

    @classmethod
    def of(cls, source: str, split: str | None) -> ScanCache:
        """Return the cache of a source that is a file or folder on this machine; one that keeps nothing for any other."""
        folder = cache_folder()
        if folder is None or not Path(source).exists():
            return cls(None)
        key = hashlib.sha256(f"{Path(source).resolve()}\0{split}".encode(errors="surrogateescape")).hexdigest()
        return cls(folder / "scans" / key[:32] / "facts.safetensors")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache: another process that looks at the same source waits, and then finds what this one has found."""
        if self.file is None:
            yield
            return
        with locked(self.file.parent, wait=True):
            yield

    def opened(self) -> ScanCache:
        """Return the cache with its folder made; one that keeps nothing where that cannot be."""
        try:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                if not os.access(self.file.parent, os.W_OK):
                    return ScanCache(None)
        except OSError:
            return ScanCache(None)
        return self

    def lookup(self, stamps: NDArray[np.uint64], progress: Progress) -> Facts:
        """Return the facts [N] of the files with these stamps; those of others have no stamp, and no peak."""
        facts = np.zeros(len(stamps), dtype=FACTS)
        facts["peak"] = -1
        kept = None if self.file is None else load_if_valid(self.file, read_checkpoint, progress)
        if kept is None or kept[1].get("made_by") != _made_by():
            return facts
        known = kept[0]["facts"].numpy().view(FACTS).reshape(-1)
        known = known[np.argsort(known["stamp"], kind="stable")]
        places = np.searchsorted(known["stamp"], stamps).clip(max=max(len(known) - 1, 0))
        found = (known["stamp"][places] == stamps) & (stamps != 0) if len(known) else np.zeros(len(stamps), dtype=bool)
        facts[found] = known[places[found]]
        return facts

    def keep(self, facts: Facts) -> None:
        """Keep the facts of files that have a stamp, in place of those kept before."""
        if self.file is not None:
            rows = np.ascontiguousarray(facts[facts["stamp"] != 0])
            table = torch.from_numpy(rows.view(np.uint8).reshape(len(rows), FACTS.itemsize))
            write_tensors(self.file, {"facts": table}, {"made_by": _made_by()})


def cache_folder() -> Path | None:
    """Return the folder of the cache: :data:`CACHE_VARIABLE`, or ``d3hr`` in the user's cache folder; None where nothing is kept."""
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "d3hr"
    except RuntimeError:  # nobody's home
        return None


def _made_by() -> str:
    """Return what else decides what is found in a file: who decodes it."""
    return f"d3hr {version('d3hr')}, Pillow {version('pillow')}, 1"
