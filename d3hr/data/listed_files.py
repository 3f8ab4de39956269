"""Encoded images that are files of a folder, on the disk or in an archive, whose names take little memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from d3hr.data.archives import Member
from d3hr.data.codec import content_of
from d3hr.errors import printable


class Names(Sequence[str]):
    """File names in one buffer: as many bytes as they have, and 8 more each, where a list of strings has about 60 more."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode(errors="surrogateescape") for name in names]
        self._ends = np.cumsum([0, *map(len, encoded)])
        self._buffer = b"".join(encoded)

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

    def __init__(self, root: Path, files: Iterable[str]) -> None:
        self._root, self._files = root, Names(files)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that is no plain file, or cannot be read, is empty."""
        return [content_of(self._root / self._files[index]) for index in indices]

    def paths(self) -> Iterator[str | Member]:
        """Yield the place of each image."""
        inside = cast(object, self._root)
        if isinstance(inside, Member):
            return (inside / file for file in self._files)
        root = os.fspath(self._root)
        return (f"{root}/{file}" for file in self._files)  # a Path for each of a million files takes long

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its path in the folder."""
        return printable(self._files[index])
