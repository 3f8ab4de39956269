"""Encoded images that are files of a folder, on the disk or in an archive, whose names take little memory.

Legend: N images.
"""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import cast

import numpy as np

from d3hr.data.headers import content_at
from d3hr.data.members import Member
from d3hr.data.plain_folder import Plain
from d3hr.data.stamps import Stamps, stamps_at
from d3hr.errors import printable


class Names(Sequence[str]):
    """File names in one buffer, which grows: as many bytes as they have, and 8 more each, where a list of strings has about 60 more.

    With a stamp each, if there are any, which take 8 more.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._buffer, self._ends, self._stamps = bytearray(), array("Q", [0]), array("Q")
        self.extend("", names)

    def extend(self, folder: str, names: Iterable[str], stamps: Iterable[int] = ()) -> None:
        """Add the names of files in a folder, whose path ends with a slash, and their stamps, if they are known."""
        encoded = [(folder + name).encode(errors="surrogateescape") for name in names]
        self._buffer += b"".join(encoded)
        self._ends.extend(accumulate(map(len, encoded[1:]), initial=self._ends[-1] + len(encoded[0])) if encoded else ())
        self._stamps.extend(stamps)

    def add(self, plain: Plain) -> None:
        """Add the names of files in a plain folder, and their stamps."""
        names, lengths, stamps = plain
        ends = self._ends[-1] + np.cumsum(np.frombuffer(lengths, dtype=np.uint32), dtype=np.uint64)
        self._buffer += names
        self._ends.frombytes(ends.astype(np.uint64).tobytes())
        self._stamps.frombytes(stamps)

    @property
    def stamps(self) -> Stamps | None:
        """The stamps [N]; None where they are not known."""
        return np.frombuffer(self._stamps, dtype=np.uint64) if len(self._stamps) == len(self) else None

    def only(self, runs: Iterable[tuple[int, int]]) -> "Names":
        """Return the names from ``start`` to ``stop`` of each run, in the order of the runs."""
        chosen = Names()
        for start, stop in runs:
            first, last = self._ends[start], self._ends[stop]
            shift = chosen._ends[-1] - first
            chosen._buffer += self._buffer[first:last]
            chosen._ends.extend(end + shift for end in self._ends[start + 1 : stop + 1])
            chosen._stamps.extend(self._stamps[start:stop])
        return chosen

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        place = range(len(self))[index]
        return self._buffer[self._ends[place] : self._ends[place + 1]].decode(errors="surrogateescape")


class ListedFiles:
    """Images that are read from files, by their paths relative to a folder.

    Args:
        root: the folder.
        files: path of each image in it, with slashes.
    """

    def __init__(self, root: Path, files: Names) -> None:
        self._root, self.files = root, files

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that is no plain file, or cannot be read, is empty."""
        if isinstance(inside := cast(object, self._root), Member):
            return [inside.content_below(self.files[index]) for index in indices]
        root = os.fspath(self._root)
        return [content_at(f"{root}/{self.files[index]}") for index in indices]

    def places(self, indices: Sequence[int]) -> list[Path]:
        """Return where the images at ``indices`` are."""
        return [self._root / self.files[index] for index in indices]

    def stamps(self) -> Stamps:
        """Return the stamp of each image, [N]: as it was listed, or else as it is now."""
        known = self.files.stamps
        return stamps_at(self._places(), len(self.files)) if known is None else known

    def _places(self) -> Iterator[str | Member]:
        inside = cast(object, self._root)
        if isinstance(inside, Member):
            return (inside / file for file in self.files)
        root = os.fspath(self._root)
        return (f"{root}/{file}" for file in self.files)  # a Path for each of a million files takes long

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its path in the folder."""
        return printable(self.files[index])
