"""Opens sources of encoded images: the built-in digits, folders, and tables on disk or of the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from d3hr.data.digits import Digits
from d3hr.data.folders import ClassFolders
from d3hr.data.tables import open_table
from d3hr.errors import DataError, listed, printable
from d3hr.fileio.names import composed_names, similar_names


class Source(Protocol):
    """Encoded images with a class each, in a fixed order."""

    class_names: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    ignored: tuple[str, ...]

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that cannot be read is empty."""

    def name(self, index: int) -> str:
        """Return the name of an image for messages."""


class Opened(NamedTuple):
    """A source, and what was found on the way to it."""

    images: Source
    split: str | None
    """The split that is read, if the source has several."""
    splits: tuple[str, ...] = ()
    """All splits, as they are called there."""
    notes: tuple[str, ...] = ()
    """What was decided on the way, for people."""


def open_source(name: str, split: str | None, image_column: str | None, label_column: str | None, config: str | None) -> Opened:
    """Open a source; arguments and errors are those of :func:`~d3hr.data.dataset.load_images`."""
    path = Path(name)
    try:
        if name == "digits":
            return Opened(Digits(split or "train"), split or "train", ("train", "validation", "test"))
        if path.is_dir() and (any(path.glob("*.parquet")) or any(path.glob("[!.]*/*.parquet"))):
            return Opened(*open_table(str(path.resolve()), split, image_column, label_column, config))
        if path.is_dir():
            folders = ClassFolders(path, split)
            return Opened(folders, folders.split, folders.splits, tuple(folders.notes))
        if path.exists():
            raise DataError(f"{name} is not a folder.", found="a file", hint="give a folder that contains one folder of images per class.")
        if is_hub_id(name):
            return Opened(*open_table(name, split, image_column, label_column, config))
    except OSError as error:
        raise DataError(
            f"{printable(name)} cannot be read.",
            found=f"{printable(str(error.filename or name))}: {error.strerror or error}",
            hint="check the path and who may read it.",
        ) from error
    raise DataError(
        f"There is no folder {name}.", found=f"nothing at {path.absolute()}", hint="check the path, or name a Hub id such as owner/name."
    )


def require_classes(images: Source, name: str, keep_similar_names: bool) -> None:
    """Bring class names into their composed form, and refuse fewer than two, or some that are hard to tell apart."""
    images.class_names = composed_names(images.class_names)
    if len(images.class_names) < 2:
        raise DataError(
            f"{name} has fewer than two classes.",
            found=f"classes: {listed(images.class_names) or 'none'}",
            hint="give a folder that contains one folder of images per class.",
        )
    similar = similar_names(images.class_names)
    if similar and not keep_similar_names:
        raise DataError(
            f"{len(similar)} class(es) of {name} have several names that are hard to tell apart.",
            found=listed([" and ".join(map(ascii, group)) for group in similar], separator="; "),
            hint="put the images of each class into one folder or, if they are different classes, pass --keep-similar-names.",
        )


def is_hub_id(name: str) -> bool:
    """Return whether a name can only mean a repository of the Hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()
