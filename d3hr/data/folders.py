"""Folders of class folders: finds the class folders, which may lie deeper or in splits, and the images of each."""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import compress, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d3hr.data.listed_files import ListedFiles, Names
from d3hr.data.listing import (
    dangling_in,
    files_below,
    folders_below,
    folders_in,
    has_images_in,
    holds_images,
    images_in,
    litter_in,
    may_be_image,
)
from d3hr.data.plain_folders import plain_folders
from d3hr.data.splits import chosen_split, split_kinds, split_of, splits_around, splits_below
from d3hr.errors import DataError, listed, printable
from d3hr.fileio.names import composed_names

_DEEPEST = 8
"""Most folders within one another that are entered to find the class folders."""


class _Run(NamedTuple):
    """Images of a class that are next to one another in the list: in or below one folder in the class folder, or in itself."""

    label: int
    inner: str
    start: int
    stop: int


class ClassFolders(ListedFiles):
    """A folder of class folders; images may lie deeper inside a class folder.

    The class folders may lie in folders of splits, have such folders in them, or lie in the only folder that has images.

    Attributes:
        split: the split that is read, as its folder is called; None where there are none.
        splits: all splits, likewise.
        notes: what was decided on the way, one sentence each.
    """

    def __init__(self, root: Path, split: str | None = None) -> None:
        super().__init__(root, Names())
        self._left_out: list[Path] = []
        self.notes: list[str] = []
        self.splits: tuple[str, ...] = ()
        self.split: str | None = None
        classes = self._class_folders(self._find(root, split))
        self.class_names = in_order(classes)
        runs = list(self._list([classes[name] for name in self.class_names]))
        if not self.splits:
            runs = self._only_split(runs, split)
        self.labels = np.repeat(np.array([run.label for run in runs], dtype=np.int64), [run.stop - run.start for run in runs])
        self.ignored = tuple(map(self._name, sorted(set(self._left_out))))

    def _list(self, folders: Sequence[Path]) -> Iterator[_Run]:
        """List the images of the classes, and yield where those of each folder in a class folder are in the list."""
        places = [(os.fspath(folder), os.fsencode(f"{folder.relative_to(self._root)}/")) for folder in folders if isinstance(folder, Path)]
        for label, (folder, plain) in enumerate(zip_longest(folders, plain_folders(places))):
            start = len(self.files)
            if plain is None:
                yield from self._list_below(label, folder)
            else:
                self.files.add(plain)
                if len(self.files) > start:
                    yield _Run(label, "", start, len(self.files))

    def _list_below(self, label: int, folder: Path) -> Iterator[_Run]:
        """List the images of a class, which has other files too, or folders in its folder."""
        for below in folders_below(folder, self._left_out, stamped=True):
            images = below.images()
            self._left_out += [below.folder / name for name, image in zip(below.names, images, strict=True) if not image]
            start = len(self.files)
            self.files.extend(f"{below.folder.relative_to(self._root)}/", compress(below.names, images), compress(below.stamps, images))
            if len(self.files) > start:
                yield _Run(label, (*below.folder.relative_to(folder).parts, "")[0], start, len(self.files))

    def _name(self, path: Path) -> str:
        """Return the path in the folder; a folder's ends with a slash."""
        return printable(str(path.relative_to(self._root))) + ("/" if path.is_dir() else "")

    def _find(self, given: Path, split: str | None) -> Path:
        """Return the folder with the class folders: the given one, a split in it, or one in the only folder in it that has images."""
        folder = _innermost(given)
        for entered in [folder, *folder.parents][: len(folder.relative_to(given).parts) + 1]:
            self._visit(entered)
        if folder != given:
            self.notes.append(f"the classes are in {self._name(folder)}, the only folder with images")
        around = splits_around(folder, split)
        if around is None:
            return folder
        self.splits = around.folders
        self.split = chosen_split(folder, self.splits, split)
        self.notes += [f"left out: {name}" for name in around.left_out]
        self._visit(folder / self.split)
        return folder / self.split

    def _visit(self, folder: Path) -> None:
        """Note what is left out of a folder; refuse links that lead nowhere."""
        self._left_out += [*litter_in(folder), *images_in(folder)]
        if dangling := dangling_in(folder):
            raise DataError(
                f"{len(dangling)} link(s) in {folder} lead nowhere.",
                found=listed(dangling),
                hint="restore what they lead to, or remove them: each may be the folder of a class.",
            )

    def _only_split(self, runs: list[_Run], split: str | None) -> list[_Run]:
        """Return the images to read, where the folders of splits lie in the class folders; all, where there are none."""
        inner: dict[str, set[str]] = {}
        for run in runs:
            inner.setdefault(self.class_names[run.label], set()).add(run.inner)
        below = splits_below(self._root, inner)
        if not below and split is None:
            return runs
        self.splits, self.split = below, chosen_split(self._root, below, split)
        chosen = [run for run in runs if split_of(run.inner) == self.split]
        self.files = self.files.only([(run.start, run.stop) for run in chosen])
        return chosen

    def _class_folders(self, folder: Path) -> dict[str, Path]:
        """Return class -> folder. A folder without images is named and left out, unless it is empty, or has images of another kind."""
        folders = folders_in(folder)
        bare = [entry for entry in folders if not holds_images(entry) and _is_other(entry)]
        self.notes += [f"left out, without images: {self._name(entry)}" for entry in bare]
        classes = [entry for entry in folders if entry not in bare]
        if not classes:
            loose = sum(1 for _ in images_in(folder))
            empty = f"{len(bare)} folder(s) without images" if bare else "no folder in it"
            raise DataError(
                f"{folder} has no class folders.",
                found=f"{loose} image(s) directly in it" if loose else empty,
                hint="put the images of each class into a folder named after the class.",
            )
        if unnameable := [printable(entry.name) for entry in classes if not _is_text(entry.name)]:
            raise DataError(
                f"{len(unnameable)} class folder(s) of {folder} have names that are not text.",
                found=listed(unnameable),
                hint="rename them in UTF-8.",
            )
        return dict(zip(composed_names([entry.name for entry in classes]), classes, strict=True))


def _innermost(given: Path) -> Path:
    """Return the folder that has class folders or splits: the given one, or the last of folders that are each alone in having images."""
    folder = given
    for _ in range(_DEEPEST):
        folders = folders_in(folder)
        inner = [entry for entry in folders if holds_images(entry)]
        if len(inner) > 1 or split_kinds(entry.name for entry in inner):
            return folder
        if not inner or has_images_in(folder) or not all(_is_other(entry) for entry in folders if entry not in inner):
            break
        folder = inner[0]
    return given


def in_order(class_names: Collection[str]) -> tuple[str, ...]:
    """Return class names in the order of their labels: by number where all are numbers, otherwise as text."""
    numbers = all(name.isdecimal() and name.isascii() for name in class_names)
    return tuple(sorted(class_names, key=lambda name: (int(name) if numbers else 0, name)))


def _is_other(folder: Path) -> bool:
    """Return whether there are files below a folder, and none that could be an image of any kind."""
    some = False
    for file in files_below(folder):
        if may_be_image(file):
            return False
        some = True
    return some


def _is_text(name: str) -> bool:
    """Return whether a file name is UTF-8; Python represents bytes that are not by lone surrogates."""
    return name == name.encode(errors="ignore").decode()
