"""Where encoded images come from: class folders, the built-in digits, tables of parquet files or of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from d3hr.decoding import MAX_BYTES
from d3hr.errors import DataError, listed, printable

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
PARQUET_EXPORT = "refs/convert/parquet"
"""Branch in which the Hub keeps every data set as parquet files, a folder for each configuration."""
SPLIT_FOLDERS = ("train", "training", "validation", "valid", "val", "test", "testing")


class Source(Protocol):
    """Encoded images with a class each, in a fixed order."""

    class_names: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    ignored: tuple[str, ...]

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that cannot be read is empty."""

    def name(self, index: int) -> str:
        """Return how to call an image in a message."""


def open_source(
    name: str, split: str | None, image_column: str | None, label_column: str | None, config: str | None = None
) -> tuple[Source, str | None]:
    """Return the source called ``name`` and the split it was read from; ``config`` is the configuration of a table that has several.

    Raises:
        DataError: there is no such source, it cannot be read, or it has no such split or column.
    """
    try:
        return _open(name, split, image_column, label_column, config)
    except OSError as error:
        raise DataError(
            f"{printable(name)} cannot be read.",
            found=f"{printable(str(error.filename or name))}: {error.strerror or error}",
            do="check the path and who may read it.",
        ) from error


def _open(
    name: str, split: str | None, image_column: str | None, label_column: str | None, config: str | None
) -> tuple[Source, str | None]:
    if name == "digits":
        return _Digits(split or "train"), split or "train"
    path = Path(name)
    if path.is_dir():
        if any(path.glob("*.parquet")) or any(path.glob("[!.]*/*.parquet")):
            return _open_table(str(path.resolve()), split, image_column, label_column, config)
        folder, found_split = _split_folder(path, split)
        return _ClassFolders(folder), found_split
    if path.exists():
        raise DataError(f"{name} is not a folder.", found="a file", do="give a folder that contains one folder of images per class.")
    if is_hub_id(name):
        return _open_table(name, split, image_column, label_column, config)
    raise DataError(
        f"There is no folder {name}.", found=f"nothing at {path.absolute()}", do="check the path, or name a Hub id such as owner/name."
    )


def is_hub_id(name: str) -> bool:
    """Return whether a name can only mean a repository of the Hub."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()


def _split_folder(path: Path, split: str | None) -> tuple[Path, str | None]:
    splits = [entry.name for entry in path.iterdir() if entry.is_dir() and entry.name in SPLIT_FOLDERS]
    if split is None:
        return (path / "train", "train") if "train" in splits else (path, None)
    if split not in splits:
        raise DataError(
            f"{path} has no split {split!r}.",
            found=f"splits: {listed(sorted(splits)) or 'none'}",
            do="leave --split out, or name one of these.",
        )
    return path / split, split


class _ClassFolders:
    """A folder of class folders; images may lie deeper inside a class folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        visible = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in visible if entry.is_dir()]
        loose = [printable(entry.name) for entry in visible if not entry.is_dir() and entry.suffix.lower() in IMAGE_SUFFIXES]
        if not folders:
            raise DataError(
                f"{root} has no class folders.",
                found=f"{len(loose)} image(s) directly in it" if loose else "no folder in it",
                do="put the images of each class into a folder named after the class.",
            )
        unnameable = [printable(folder.name) for folder in folders if not _is_text(folder.name)]
        if unnameable:
            raise DataError(
                f"{len(unnameable)} class folder(s) of {root} have names that are no text.",
                found=listed(unnameable),
                do="rename them in UTF-8.",
            )
        self.class_names = tuple(folder.name for folder in folders)
        self._files: list[str] = []
        ignored = list(loose)
        labels: list[int] = []
        for label, folder in enumerate(folders):
            for file in _files_below(folder):
                relative = str(file.relative_to(root))
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    self._files.append(relative)
                    labels.append(label)
                elif not file.name.startswith("."):
                    ignored.append(printable(relative))
        self.labels = np.array(labels, dtype=np.int64)
        self.ignored = tuple(ignored)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [_content(self._root / self._files[index]) for index in indices]

    def name(self, index: int) -> str:
        return printable(self._files[index])


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a class in order; links are followed, but a folder that they lead to again and again is entered once."""

    def refused(error: OSError) -> None:
        raise error

    entered = set()
    for parent, directories, files in os.walk(folder, followlinks=True, onerror=refused):
        directories.sort()
        place = Path(parent).stat()
        if (place.st_dev, place.st_ino) in entered:
            directories.clear()
            continue
        entered.add((place.st_dev, place.st_ino))
        yield from (Path(parent) / file for file in sorted(files))


def _content(path: Path) -> bytes:
    """Return what is in a plain file of at most :data:`~d3hr.decoding.MAX_BYTES`; nothing of anything else."""
    try:
        about = path.stat()
        return path.read_bytes() if stat.S_ISREG(about.st_mode) and about.st_size <= MAX_BYTES else b""
    except (OSError, ValueError):
        return b""


def _is_text(name: str) -> bool:
    """Return whether a file name is UTF-8; Python stands lone surrogates for bytes that are not."""
    return name == name.encode(errors="ignore").decode()


class _Digits:
    """scikit-learn's 1,797 handwritten digits (8 x 8, UCI), split once: 1,197 train, 240 validation, 360 test."""

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        rest, test = train_test_split(np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0)
        train, validation = train_test_split(rest, test_size=240, stratify=digits.target[rest], random_state=0)
        parts = {"train": train, "validation": validation, "test": test}
        if split not in parts:
            raise DataError(f"digits has no split {split!r}.", found=f"splits: {listed(list(parts))}", do="name one of these.")
        self._rows = np.sort(parts[split])
        self._pixels = np.round(digits.images[self._rows] * (255 / 16)).astype(np.uint8)
        self.labels = digits.target[self._rows].astype(np.int64)
        self.class_names = tuple(str(name) for name in digits.target_names)
        self.ignored: tuple[str, ...] = ()

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [_png(self._pixels[index]) for index in indices]

    def name(self, index: int) -> str:
        return f"digits[{self._rows[index]}]"


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


class _Table:
    """A table of encoded images, read through Hugging Face ``datasets``."""

    def __init__(self, name: str, table: Any, image_column: str, label_column: str) -> None:
        import datasets

        self._name = name
        self._column = image_column
        self._roots = _roots(name)
        labels = table.features[label_column]
        values = table[label_column][:]
        if isinstance(labels, datasets.ClassLabel):
            names = tuple(str(label) for label in labels.names)
            self.labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        else:
            distinct = sorted({value for value in values if isinstance(value, str | int)}, key=lambda value: (str(type(value)), value))
            names = tuple(str(value) for value in distinct)
            place = {value: label for label, value in enumerate(distinct)}
            self.labels = np.array([place[value] if isinstance(value, str | int) else -1 for value in values], dtype=np.int64)
        if len(set(names)) < len(names) or (self.labels < 0).any() or (self.labels >= len(names)).any():
            raise DataError(
                f"Column {label_column!r} of {name} does not give every image one named class.",
                found=f"{int((self.labels < 0).sum())} rows without a class, {len(names) - len(set(names))} repeated names",
                do="choose another --label_column or --split.",
            )
        self.class_names = names
        self.ignored: tuple[str, ...] = ()
        try:
            self._images = table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
        except Exception as error:  # Arrow raises from a tree of its own
            raise DataError(
                f"Column {image_column!r} of {name} does not hold images.",
                found=f"{table.features[image_column]}",
                do="choose another --image_column.",
            ) from error

    def read(self, indices: Sequence[int]) -> list[bytes]:
        rows = self._images[indices if isinstance(indices, range) else list(indices)][self._column]
        return [self._content(row) for row in rows]

    def _content(self, row: dict[str, Any] | None) -> bytes:
        if row is None:
            return b""
        if row["bytes"] is not None:
            return bytes(row["bytes"]) if len(row["bytes"]) <= MAX_BYTES else b""
        if not row["path"] or "\0" in row["path"]:
            return b""
        path = Path(row["path"]).resolve()
        return _content(path) if any(path.is_relative_to(root) for root in self._roots) else b""

    def name(self, index: int) -> str:
        return f"{self._name} row {index}"


def _roots(name: str) -> tuple[Path, ...]:
    """Return the folders in which the images that a table keeps as files may lie: its own, or the caches that hold what the Hub sent.

    A table names such files itself, and one from elsewhere might name any picture on this machine.
    """
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    own = Path(name)
    return (
        (own.resolve(),)
        if own.is_dir()
        else tuple(Path(root).resolve() for root in (datasets.config.HF_CACHE_HOME, HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE))
    )


def _open_table(name: str, split: str | None, image_column: str | None, label_column: str | None, config: str | None) -> tuple[Source, str]:
    import datasets

    try:
        splits = _load_table(name, config)
    except Exception as error:  # the Hub client raises from many unrelated trees
        raise DataError(
            f"{name} cannot be opened as a data set.",
            found=f"no folder of that name here; {type(error).__name__}: {error}",
            do="check the path or Hub id, and the network if it is a Hub id.",
        ) from error
    chosen = split or ("train" if "train" in splits else next(iter(splits)))
    if chosen not in splits:
        raise DataError(f"{name} has no split {chosen!r}.", found=f"splits: {listed(list(splits))}", do="name one of these with --split.")
    table = splits[chosen]
    kinds = {"image": (datasets.Image,), "label": (datasets.ClassLabel,)}
    image = _choose_column(name, table.features, image_column, kinds["image"], ("image", "img"), "--image_column")
    label = _choose_column(name, table.features, label_column, kinds["label"], ("label", "labels", "fine_label"), "--label_column")
    return _Table(name, table, image, label), chosen


def _load_table(name: str, config: str | None) -> Any:
    """Return the splits of a table; where the Hub's repository is a script, which ``datasets`` no longer runs, the Hub's export of it."""
    import datasets

    try:
        return datasets.load_dataset(name, config, cache_dir=_own_cache(Path(name)) if Path(name).is_dir() else None)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return datasets.load_dataset(name, data_dir=config, revision=PARQUET_EXPORT)


def _own_cache(folder: Path) -> str:
    """Return a cache for one state of a local table: ``datasets`` takes two folders of one name and card for the same data."""
    import datasets

    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.rglob("*.parquet"))]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "d3hr" / hashlib.sha256(repr(files).encode()).hexdigest()[:16])


def _choose_column(name: str, features: Any, given: str | None, kinds: tuple[type, ...], usual: tuple[str, ...], flag: str) -> str:
    fitting = [column for column, feature in features.items() if isinstance(feature, kinds)]
    candidates = [given] if given is not None else [column for column in usual if column in features][:1] or fitting
    if len(candidates) != 1 or candidates[0] not in features:
        raise DataError(
            f"{name}: the column to use is not clear.",
            found=f"columns: {listed(list(features))}; of the right kind: {listed(fitting) or 'none'}",
            do=f"name it with {flag}.",
        )
    return candidates[0]
