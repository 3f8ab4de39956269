"""Shards of WebDataset: tar files in which the files of one example share their name up to the first dot, ``0001.jpg`` and ``0001.cls``."""

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np

from d3hr.data.folders import in_order
from d3hr.data.headers import content_of
from d3hr.data.listed_files import Names
from d3hr.data.listing import files_below, is_image
from d3hr.data.members import Member, open_archive
from d3hr.data.splits import chosen_split, split_kinds
from d3hr.data.stamps import Stamps, stamps_at
from d3hr.errors import DataError, listed, printable

_LABELS = ("cls", "label.txt", "class", "json")
"""Endings of the files that hold the label of an example, the likeliest first."""
_KEYS = ("label", "cls", "class", "class_name", "category", "target")
"""Where a JSON object has the label."""
_FEW = 5
"""How many files of the first shard tell whether it is one."""


def shards_in(folder: Path) -> list[Path]:
    """Return the tar files in a folder that holds nothing else to read; nothing if it does."""
    files = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    tars = [file for file in files if file.suffix.lower() == ".tar" and file.is_file()]
    return tars if tars and not any(file.is_dir() or is_image(file) for file in files) and is_shard(open_archive(tars[0])) else []


def is_shard(inside: Path) -> bool:
    """Return whether the first images of an archive have a label of their own next to them."""
    found = [label is not None for _, label in list(_examples(inside).values())[:_FEW]]
    return bool(found) and all(found)


class Shards:
    """The images of the shards of one split.

    Attributes:
        split: the split that is read, as the names of the shards say; None where they say nothing.
        splits: all splits.

    Raises:
        DataError: an example has no label.
    """

    def __init__(self, paths: Sequence[Path], split: str | None) -> None:
        kinds = {path: next(iter(split_kinds(_words(path)).values()), "") for path in paths}
        self.splits = tuple(sorted(set(kinds.values()) - {""})) if all(kinds.values()) else ()
        self.split = chosen_split(paths[0].parents[0], self.splits, split) if len(self.splits) > 1 or split is not None else None
        read = [path for path in paths if self.split is None or kinds[path] == self.split]
        self._shards = [cast(Member, open_archive(path)) for path in read]
        self._files = Names()
        firsts, found, codes = [0], dict[str, int](), array("q")
        for shard in self._shards:
            for image, label in _labelled(shard):
                codes.append(found.setdefault(label, len(found)))
                self._files.extend("", [image])
            firsts.append(len(codes))
        self._firsts = np.array(firsts)
        self.class_names = in_order(found)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        self.labels = np.array([label_of[name] for name in found], dtype=np.int64)[np.frombuffer(codes, dtype=np.int64)]
        self.ignored: tuple[str, ...] = ()

    def _shard(self, index: int) -> Member:
        return self._shards[int(np.searchsorted(self._firsts, index, side="right")) - 1]

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``."""
        return [self._shard(index).content_below(self._files[index]) for index in indices]

    def places(self, indices: Sequence[int]) -> list[Path]:
        """Return where the images at ``indices`` are."""
        return [cast(Path, self._shard(index) / self._files[index]) for index in indices]

    def stamps(self) -> Stamps:
        """Return the stamp of each image, [N]."""
        return stamps_at((self._shard(index) / file for index, file in enumerate(self._files)), len(self._files))

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its shard, and its name in it."""
        return printable(str(self._shard(index) / self._files[index]))


def _labelled(shard: Member) -> Iterator[tuple[str, str]]:
    """Yield the path of each image in a shard, and its label.

    Raises:
        DataError: an example has no label.
    """
    for image, label in _examples(cast(Path, shard)).values():
        text = "" if label is None else _label(label)
        if not text:
            raise DataError(
                f"An example of {shard} has no label.",
                found=printable(image.name),
                hint=f"give each a file with the same name, and one of the endings {listed(['.' + ending for ending in _LABELS])}.",
            )
        yield str(image.relative_to(cast(Path, shard))), text


def _examples(inside: Path) -> dict[str, tuple[Path, Path | None]]:
    """Return name of an example -> its image and the file with its label, in the order of the names."""
    files: dict[str, dict[str, Path]] = {}
    for file in files_below(inside):
        path = PurePosixPath(file.relative_to(inside))
        stem, _, ending = path.name.partition(".")
        files.setdefault(str(path.with_name(stem)) if stem else "", {})[ending.lower()] = file
    examples = {}
    for key, members in files.items():
        image = next((file for ending, file in members.items() if ending not in _LABELS and is_image(file)), None)
        if image is not None:
            examples[key] = image, next((members[ending] for ending in _LABELS if ending in members), None)
    return examples


def _label(file: Path) -> str:
    """Return the label in a file; empty if it holds none."""
    try:
        text = content_of(file).decode("utf-8").strip()
        if not file.name.lower().endswith(".json"):
            return text
        values = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = next((values[key] for key in _KEYS if key in values), None) if isinstance(values, dict) else values
    return str(found) if isinstance(found, str | int) else ""


def _words(path: Path) -> list[str]:
    return path.name.partition(".")[0].replace("_", "-").split("-")
