"""Opens sources of encoded images: the built-in digits, folders, and tables on disk or of the Hugging Face Hub."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from d3hr.data.codec import content_of, png_of
from d3hr.data.tables import open_table
from d3hr.errors import DataError, listed, printable

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
"""Endings of the files that are read; others are listed as ignored."""
_SPLIT_FOLDERS = ("train", "training", "validation", "valid", "val", "test", "testing")


class Source(Protocol):
    """Encoded images with a class each, in a fixed order."""

    class_names: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    ignored: tuple[str, ...]

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that cannot be read is empty."""

    def name(self, index: int) -> str:
        """Return the name of an image for messages."""


def open_source(
    name: str, split: str | None, image_column: str | None, label_column: str | None, config: str | None
) -> tuple[Source, str | None]:
    """Return a source and the split that was read; arguments and errors are those of :func:`~d3hr.data.dataset.load_images`."""
    path = Path(name)
    try:
        if name == "digits":
            return Digits(split or "train"), split or "train"
        if path.is_dir() and (any(path.glob("*.parquet")) or any(path.glob("[!.]*/*.parquet"))):
            return open_table(str(path.resolve()), split, image_column, label_column, config)
        if path.is_dir():
            folder, found_split = _split_folder(path, split)
            return ClassFolders(folder), found_split
        if path.exists():
            raise DataError(f"{name} is not a folder.", found="a file", hint="give a folder that contains one folder of images per class.")
        if is_hub_id(name):
            return open_table(name, split, image_column, label_column, config)
    except OSError as error:
        raise DataError(
            f"{printable(name)} cannot be read.",
            found=f"{printable(str(error.filename or name))}: {error.strerror or error}",
            hint="check the path and who may read it.",
        ) from error
    raise DataError(
        f"There is no folder {name}.", found=f"nothing at {path.absolute()}", hint="check the path, or name a Hub id such as owner/name."
    )


def is_hub_id(name: str) -> bool:
    """Return whether a name can only mean a repository of the Hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()


class Digits:
    """scikit-learn's 1,797 handwritten digits (8 x 8, UCI), split once: 1,197 train, 240 validation, 360 test."""

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        rest, test = train_test_split(np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0)
        train, validation = train_test_split(rest, test_size=240, stratify=digits.target[rest], random_state=0)
        parts = {"train": train, "validation": validation, "test": test}
        if split not in parts:
            raise DataError(f"digits has no split {split!r}.", found=f"splits: {listed(list(parts))}", hint="name one of these.")
        self._rows = np.sort(parts[split])
        self._pixels = np.round(digits.images[self._rows] * (255 / 16)).astype(np.uint8)
        self.labels = digits.target[self._rows].astype(np.int64)
        self.class_names = tuple(str(name) for name in digits.target_names)
        self.ignored: tuple[str, ...] = ()

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the images at ``indices``, encoded as PNG."""
        return [png_of(Image.fromarray(self._pixels[index])) for index in indices]

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its row in scikit-learn's digits."""
        return f"digits[{self._rows[index]}]"


def _split_folder(path: Path, split: str | None) -> tuple[Path, str | None]:
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
