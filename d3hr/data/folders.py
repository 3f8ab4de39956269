"""Folders of class folders, and the folders of splits that may lie around them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from d3hr.data.codec import content_of
from d3hr.errors import DataError, listed, printable

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""Endings of the files that are read; others are listed as ignored."""
_SPLIT_FOLDERS = ("train", "training", "validation", "valid", "val", "test", "testing")


def split_folder(path: Path, split: str | None) -> tuple[Path, str | None]:
    """Return the folder of a split and its name: by default ``train``, or the folder itself where it has no splits."""
    splits = [entry.name for entry in path.iterdir() if entry.is_dir() and entry.name in _SPLIT_FOLDERS]
    if split is None:
        return (path / "train", "train") if "train" in splits else (path, None)
    if split not in splits:
        raise DataError(
            f"{path} has no split {split!r}.",
            found=f"splits: {listed(sorted(splits)) or 'none'}",
            hint="leave --split out, or name one of these.",
        )
    return path / split, split


class ClassFolders:
    """A folder of class folders; images may lie deeper inside a class folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        visible = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in visible if entry.is_dir()]
        loose = [printable(entry.name) for entry in visible if not entry.is_dir() and entry.suffix.lower() in _IMAGE_SUFFIXES]
        if not folders:
            raise DataError(
                f"{root} has no class folders.",
                found=f"{len(loose)} image(s) directly in it" if loose else "no folder in it",
                hint="put the images of each class into a folder named after the class.",
            )
        unnameable = [printable(folder.name) for folder in folders if not _is_text(folder.name)]
        if unnameable:
            raise DataError(
                f"{len(unnameable)} class folder(s) of {root} have names that are not text.",
                found=listed(unnameable),
                hint="rename them in UTF-8.",
            )
        self.class_names = tuple(folder.name for folder in folders)
        self._files: list[str] = []
        ignored = list(loose)
        labels: list[int] = []
        for label, folder in enumerate(folders):
            for file in _files_below(folder):
                relative = str(file.relative_to(root))
                if file.suffix.lower() in _IMAGE_SUFFIXES:
                    self._files.append(relative)
                    labels.append(label)
                elif not file.name.startswith("."):
                    ignored.append(printable(relative))
        self.labels = np.array(labels, dtype=np.int64)
        self.ignored = tuple(ignored)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that is no plain file, or cannot be read, is empty."""
        return [content_of(self._root / self._files[index]) for index in indices]

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its path in the folder."""
        return printable(self._files[index])


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a class, sorted within each folder; links are followed, and a folder that several lead to is entered once."""

    def fail(error: OSError) -> None:
        raise error

    entered = set()
    for parent, directories, files in os.walk(folder, followlinks=True, onerror=fail):
        directories.sort()
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in entered:
            directories.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        yield from (Path(parent) / file for file in sorted(files))


def _is_text(name: str) -> bool:
    """Return whether a file name is UTF-8; Python represents bytes that are not by lone surrogates."""
    return name == name.encode(errors="ignore").decode()
