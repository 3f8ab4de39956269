"""The names of the files in an archive, and where they are, in little memory: no Python object for each.

Legend: N files.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import numpy as np


class _Sorted(Sequence[bytes]):
    """Names, sorted, in one buffer."""

    def __init__(self, names: list[bytes]) -> None:
        self._ends = array("Q", accumulate(map(len, names), initial=0))
        self._buffer = b"".join(names)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        return self._buffer[self._ends[index] : self._ends[index + 1]]


class Index:
    """N files by their names, which have slashes between their parts, with some whole numbers each; and folders without any.

    Args:
        files: name -> numbers, in any order; of several of one name, the last counts.
        folders: names of folders; those that hold files need not be given.
        columns: how many numbers each file has.
    """

    def __init__(self, files: Iterable[tuple[str, Sequence[int]]], folders: Iterable[str], columns: int) -> None:
        names, numbers = list[bytes](), array("Q")
        for name, values in files:
            names.append(name.encode(errors="surrogateescape"))
            numbers.extend(values)
        order = sorted(range(len(names)), key=names.__getitem__)
        order = [index for index, after in zip(order, [*order, -1][1:], strict=True) if after < 0 or names[index] != names[after]]
        self._numbers = np.frombuffer(numbers, dtype=np.uint64).reshape(-1, columns)[np.array(order, dtype=np.int64)]
        self._names = _Sorted([names[index] for index in order])
        self._folders = sorted(name.encode(errors="surrogateescape") + b"/" for name in set(folders))
        self._last = 0

    def __len__(self) -> int:
        return len(self._names)

    def numbers(self, name: str) -> list[int] | None:
        """Return the numbers of a file; None if there is none of that name."""
        key = name.encode(errors="surrogateescape")
        place = self._last + 1  # files are mostly asked for in order
        if place >= len(self._names) or self._names[place] != key:
            place = bisect_left(self._names, key)
        if place >= len(self._names) or self._names[place] != key:
            return None
        self._last = place
        numbers: list[int] = self._numbers[place].tolist()
        return numbers

    def is_folder(self, name: str) -> bool:
        """Return whether there is a folder of that name; the outermost has none."""
        return not name or self._begins(self._names, name) or self._begins(self._folders, name)

    def _begins(self, names: Sequence[bytes], folder: str) -> bool:
        prefix = folder.encode(errors="surrogateescape") + b"/"
        place = bisect_left(names, prefix)
        return place < len(names) and names[place].startswith(prefix)

    def entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield the name of each file and folder directly in a folder, and whether it is a folder; folders without files last."""
        prefix = folder.encode(errors="surrogateescape") + b"/" if folder else b""
        seen = set[bytes]()
        for names in (self._names, self._folders):
            place = bisect_left(names, prefix)
            while place < len(names) and names[place].startswith(prefix):
                child, slash, _ = names[place][len(prefix) :].partition(b"/")
                # All that is in a folder comes next to one another, before the name that ends with the character after the slash.
                place = bisect_left(names, prefix + child + b"0", place) if slash else place + 1
                if slash and child and child not in seen:
                    seen.add(child)
                    yield child.decode(errors="surrogateescape"), True
                elif child and not slash:
                    yield child.decode(errors="surrogateescape"), False
