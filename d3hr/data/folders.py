"""Folders of class folders: finds the class folders, which may lie deeper or in splits, and the images of each."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from d3hr.data.listed_files import ListedFiles
from d3hr.data.listing import dangling_in, files_below, folders_in, holds_images, images_in, is_image, litter_in, may_be_image
from d3hr.data.splits import chosen_split, split_kinds, split_of, splits_around, splits_below
from d3hr.errors import DataError, listed, printable
from d3hr.fileio.names import composed_names

_DEEPEST = 8
"""Most folders within one another that are entered to find the class folders."""


class ClassFolders(ListedFiles):
    """A folder of class folders; images may lie deeper inside a class folder.

    The class folders may lie in folders of splits, have such folders in them, or lie in the only folder that has images.

    Attributes:
        split: the split that is read, as its folder is called; None where there are none.
        splits: all splits, likewise.
        notes: what was decided on the way, one sentence each.
    """

    def __init__(self, root: Path, split: str | None = None) -> None:
        self._root = root
        self._left_out: list[Path] = []
        self.notes: list[str] = []
        self.splits: tuple[str, ...] = ()
        self.split: str | None = None
        classes = self._class_folders(self._find(root, split))
        found = {name: list(files_below(folder, self._left_out)) for name, folder in classes.items()}
        images = {name: [file for file in files if is_image(file)] for name, files in found.items()}
        self._left_out += [file for files in found.values() for file in files if not is_image(file)]
        if not self.splits:
            images = self._only_split(classes, images, split)
        self.class_names = in_order(images)
        self.labels = np.repeat(np.arange(len(images), dtype=np.int64), [len(images[name]) for name in self.class_names])
        super().__init__(root, (str(file.relative_to(root)) for name in self.class_names for file in images[name]))
        self.ignored = tuple(map(self._name, sorted(set(self._left_out))))

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

    def _only_split(self, classes: Mapping[str, Path], images: dict[str, list[Path]], split: str | None) -> dict[str, list[Path]]:
        """Return the images to read of each class, where the folders of splits lie in the class folders; all, where there are none."""
        inside = {name: [file.relative_to(classes[name]) for file in files] for name, files in images.items()}
        below = splits_below(self._root, inside)
        if not below and split is None:
            return images
        self.splits, self.split = below, chosen_split(self._root, below, split)
        return {name: [file for file in files if split_of(file.relative_to(classes[name])) == self.split] for name, files in images.items()}

    def _class_folders(self, folder: Path) -> dict[str, Path]:
        """Return class -> folder. A folder without images is named and left out, unless it is empty, or has images of another kind."""
        folders = folders_in(folder)
        bare = [entry for entry in folders if not holds_images(entry) and _is_other(entry)]
        self.notes += [f"left out, without images: {self._name(entry)}" for entry in bare]
        classes = [entry for entry in folders if entry not in bare]
        loose = images_in(folder)
        if not classes:
            empty = f"{len(bare)} folder(s) without images" if bare else "no folder in it"
            raise DataError(
                f"{folder} has no class folders.",
                found=f"{len(loose)} image(s) directly in it" if loose else empty,
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
        if not inner or images_in(folder) or not all(_is_other(entry) for entry in folders if entry not in inner):
            break
        folder = inner[0]
    return given


def in_order(class_names: Collection[str]) -> tuple[str, ...]:
    """Return class names in the order of their labels: by number where all are numbers, otherwise as text."""
    numbers = all(name.isdecimal() and name.isascii() for name in class_names)
    return tuple(sorted(class_names, key=lambda name: (int(name) if numbers else 0, name)))


def _is_other(folder: Path) -> bool:
    """Return whether there are files below a folder, and none that could be an image of any kind."""
    files = list(files_below(folder))
    return bool(files) and not any(map(may_be_image, files))


def _is_text(name: str) -> bool:
    """Return whether a file name is UTF-8; Python represents bytes that are not by lone surrogates."""
    return name == name.encode(errors="ignore").decode()
