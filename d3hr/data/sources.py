"""Opens sources of encoded images: the built-in digits, folders, archives, single files, and tables of the Hugging Face Hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from d3hr.data.arrays import idx_files, is_idx, open_idx, open_npz
from d3hr.data.class_names import names_of_labels, renamed
from d3hr.data.digits import Digits
from d3hr.data.folders import ClassFolders
from d3hr.data.formats import kind_of, what_else
from d3hr.data.headers import start_of
from d3hr.data.in_memory import open_in_memory
from d3hr.data.label_tables import LABEL_SUFFIXES, by_table, find_table, read_table
from d3hr.data.labels import LabelledFiles, by_pattern
from d3hr.data.listing import folders_in
from d3hr.data.members import is_archive, open_archive
from d3hr.data.pickles import refuse_pickles
from d3hr.data.tables import open_table, saved_by_datasets
from d3hr.data.webdataset import Shards, is_shard, shards_in
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


class Request(NamedTuple):
    """How a source is to be read; each field is the argument of :func:`~d3hr.data.opening.load_images` of the same name."""

    split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    config: str | None = None
    label_pattern: str | None = None
    class_names: str | Path | Sequence[str] | None = None


def open_source(name: str, request: Request, given: object = None) -> Opened:
    """Open a source, or images ``given`` in memory; errors are those of :func:`~d3hr.data.opening.load_images`."""
    if given is not None and not isinstance(request.class_names, str | Path | None):
        return _open_given(name, given, request, request.class_names)
    names = None if request.class_names is None else names_of_labels(request.class_names)
    opened = _open(name, request) if given is None else _open_given(name, given, request, None)
    if names is not None:
        opened.images.class_names = renamed(opened.images.class_names, names, name)
    return opened


def _open_given(name: str, given: object, request: Request, class_names: Sequence[str] | None) -> Opened:
    return Opened(*open_in_memory(name, given, request.split, request.image_column, request.label_column, class_names))


def _open(name: str, request: Request) -> Opened:
    """Open a source; its classes have the names that they have there."""
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    try:
        if name == "digits":
            return Opened(Digits(request.split or "train"), request.split or "train", ("train", "validation", "test"))
        if path.is_dir():
            return _open_folder(path, request)
        if path.is_file():
            return _open_file(path, request)
        if path.exists():
            raise DataError(f"{printable(name)} is no plain file.", found="a device or pipe", hint="give a folder, or a file of images.")
        if is_hub_id(name):
            return _open_table(name, request)
    except OSError as error:
        raise DataError(
            f"{printable(name)} cannot be read.",
            found=f"{printable(str(error.filename or name))}: {error.strerror or error}",
            hint="check the path and who may read it.",
        ) from error
    _refuse_address(name)
    raise DataError(
        f"There is no folder {name}.", found=f"nothing at {path.absolute()}", hint="check the path, or name a Hub id such as owner/name."
    )


def _open_folder(path: Path, request: Request) -> Opened:
    """Open a folder on the disk."""
    if any(name.endswith(".parquet") for folder in (path, *folders_in(path)) for name in os.listdir(folder)):  # noqa: PTH208 (a million)
        return _open_table(str(path.resolve()), request)
    if saved_by_datasets(path):
        return _open_table(str(path.resolve()), request)
    if files := idx_files(path):
        return Opened(*open_idx(files, request.split))
    if shards := shards_in(path):
        return _open_shards(shards, request)
    return _open_images(path, request)


def _open_file(path: Path, request: Request) -> Opened:
    """Open what one file holds, by its first bytes."""
    start = start_of(path)
    if path.suffix.lower() in LABEL_SUFFIXES:
        table = read_table(path, request.image_column, request.label_column)
        if table is None:
            raise DataError(
                f"{path} has no column of files and one of labels.",
                found="other columns",
                hint="name them with --image-column and --label-column.",
            )
        return _labelled(by_table(table, request.split))
    if path.suffix.lower() == ".npz":
        return Opened(*open_npz(path, request.split))
    if is_idx(path):
        return Opened(*open_idx([path], request.split))
    refuse_pickles(path)
    if start.startswith(b"PAR1"):
        return _open_table(str(path.resolve()), request)
    if is_archive(path):
        inside = open_archive(path)
        return _open_shards([path], request) if is_shard(inside) else _open_images(inside, request)
    kind = kind_of(start)
    raise DataError(
        f"{path} is no data set.",
        found=f"one {kind.name} image" if kind else what_else(start) or "a file of an unknown kind",
        hint="give a folder that contains one folder of images per class, or an archive of one.",
    )


def _open_images(folder: Path, request: Request) -> Opened:
    """Open image files in a folder or archive, whose labels come from a pattern, from a table, or from the folders they lie in."""
    if request.label_pattern is not None:
        return _labelled(by_pattern(folder, request.label_pattern, request.split))
    if found := find_table(folder, request.split, request.image_column, request.label_column):
        table, split = found
        opened = _labelled(by_table(table, None if split else request.split), f"the labels are those of {table.path}")
        return opened._replace(split=split) if split else opened
    try:
        folders = ClassFolders(folder, request.split)
    except DataError:
        refuse_pickles(folder)
        raise
    if not len(folders.labels):
        refuse_pickles(folder)
    return Opened(folders, folders.split, folders.splits, tuple(folders.notes))


def _labelled(files: LabelledFiles, *notes: str) -> Opened:
    return Opened(files, files.split, files.splits, notes)


def _open_shards(paths: list[Path], request: Request) -> Opened:
    shards = Shards(paths, request.split)
    return Opened(shards, shards.split, shards.splits)


def _open_table(name: str, request: Request) -> Opened:
    return Opened(*open_table(name, request.split, request.image_column, request.label_column, request.config))


def _refuse_address(name: str) -> None:
    """Refuse what is no path of this machine, and say what it is."""
    if address := re.match(r"(\w[\w+.-]*)://(.*)", name, re.ASCII | re.DOTALL):
        kind, place = address.groups()
        on_hub = re.search(r"(?:^|/)datasets/([\w.-]+/[\w.-]+)", place) if kind.startswith("hf") or "huggingface.co/" in place else None
        raise DataError(
            f"{printable(name)} is an address, and d3hr reads no addresses.",
            found=f"a place that {printable(kind)} leads to",
            hint=f"name the data set of the Hub by its id, {on_hub[1]}." if on_hub else "download it, and give the folder or archive.",
        )
    if re.search(r"[*?\[]", name):
        raise DataError(
            f"{printable(name)} is a pattern, and d3hr reads one folder.",
            found="characters that stand for others, and no folder of that very name",
            hint="give the folder that contains one folder of images per class.",
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
