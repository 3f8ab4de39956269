"""Opens sources of encoded images: the built-in digits, folders, and tables on disk or of the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from d3hr.data.digits import Digits
from d3hr.data.folders import ClassFolders, split_folder
from d3hr.data.tables import open_table
from d3hr.errors import DataError, printable


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
            folder, found_split = split_folder(path, split)
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
