"""Keeps what a scan found in image files, so that files which have not changed since are not read and decoded again.

A file is known again by its stamp (:mod:`~d3hr.data.stamps`); its content hash stays what it was. Legend: R images of one part of a source.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d3hr.data.stamps import Stamps
from d3hr.fileio.atomic import load_if_valid, read_checkpoint, write_tensors
from d3hr.fileio.locking import locked
from d3hr.progress import Progress

CACHE_VARIABLE = "D3HR_CACHE"
"""Environment variable that names the folder of the cache; empty, nothing is kept."""
FACTS = np.dtype([("stamp", "<u8"), ("content", "u1", 32), ("width", "<i4"), ("height", "<i4"), ("peak", "<i4"), ("frames", "?")])
"""What is found in one image: its stamp, SHA-256, size in pixels, the largest value of a 16-bit picture whose file does not tell its range
(else -1), and whether it has several frames. 53 bytes."""
Facts = NDArray[Any]
"""Structured array [R] of :data:`FACTS`; a stamp of 0 is that of a file which is not known."""


@dataclass(frozen=True)
class ScanCache:
    """The facts of one source's images, in files of as many as are scanned at once: a scan that was stopped goes on from there."""

    folder: Path | None
    """None where nothing is kept."""

    @classmethod
    def of(cls, source: str, split: str | None) -> ScanCache:
        """Return the cache of a source that is a file or folder on this machine; one that keeps nothing for any other."""
        folder = cache_folder()
        if folder is None or not Path(source).exists():
            return cls(None)
        key = hashlib.sha256(f"{Path(source).resolve()}\0{split}".encode(errors="surrogateescape")).hexdigest()
        return cls(folder / "scans" / key[:32])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache: another process that looks at the same source waits, and then finds what this one has found."""
        if self.folder is None:
            yield
            return
        with locked(self.folder, wait=True):
            yield

    def opened(self) -> ScanCache:
        """Return the cache with its folder made; one that keeps nothing where that cannot be."""
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not os.access(self.folder, os.W_OK):
                    return ScanCache(None)
        except OSError:
            return ScanCache(None)
        return self

    def lookup(self, stamps: Stamps, progress: Progress) -> Facts:
        """Return the facts [R] of the images of one part, by their stamps; those that are not known have no stamp, and no peak."""
        facts = np.zeros(len(stamps), dtype=FACTS)
        facts["peak"] = -1
        if self.folder is None or not stamps.any():
            return facts
        same = self._read(self._file(stamps), progress)
        for rows in [same] if same is not None and len(same) == len(stamps) else self._parts_with(stamps, progress):
            if rows is same:
                found, places = rows["stamp"] == stamps, np.arange(len(stamps))
            else:
                order = np.argsort(rows["stamp"], kind="stable")
                places = order[np.searchsorted(rows["stamp"], stamps, sorter=order).clip(max=len(rows) - 1)]
                found = rows["stamp"][places] == stamps
            found &= stamps != 0
            facts[found] = rows[places[found]]
        return facts

    def _parts_with(self, stamps: Stamps, progress: Progress) -> Iterator[Facts]:
        """Yield the kept parts that know any of these stamps: files were added or removed, and images are in other parts than before."""
        assert self.folder is not None
        wanted = np.sort(stamps)
        for file in sorted(self.folder.glob("*.safetensors")):
            rows = self._read(file, progress)
            if rows is not None and len(rows):
                places = np.searchsorted(wanted, rows["stamp"]).clip(max=len(wanted) - 1)
                if ((wanted[places] == rows["stamp"]) & (rows["stamp"] != 0)).any():
                    yield rows

    def keep(self, stamps: Stamps, facts: Facts) -> None:
        """Keep the facts [R] of the images of one part, as far as they have a stamp."""
        if self.folder is not None and facts["stamp"].any():
            table = torch.from_numpy(np.ascontiguousarray(facts).view(np.uint8).reshape(len(facts), FACTS.itemsize))
            write_tensors(self._file(stamps), {"facts": table}, {"made_by": _made_by()})

    def forget_others(self, parts: Sequence[Stamps]) -> None:
        """Remove what is kept of other parts than these, which are all there are."""
        if self.folder is not None:
            kept = {self._file(stamps) for stamps in parts}
            for file in set(self.folder.glob("*.safetensors")) - kept:
                file.unlink(missing_ok=True)

    def has(self, stamps: Stamps) -> bool:
        """Return whether there is a file of this very part."""
        return self.folder is not None and self._file(stamps).exists()

    def _file(self, stamps: Stamps) -> Path:
        """Return the file of the part whose images have these stamps: another one where any of them has changed."""
        assert self.folder is not None
        return self.folder / f"{hashlib.blake2b(stamps.tobytes(), digest_size=16).hexdigest()}.safetensors"

    def _read(self, file: Path, progress: Progress) -> Facts | None:
        kept = load_if_valid(file, read_checkpoint, progress)
        return kept[0]["facts"].numpy().view(FACTS).reshape(-1) if kept and kept[1].get("made_by") == _made_by() else None


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
    return f"d3hr {version('d3hr')}, Pillow {version('pillow')}, 2"
