"""Tables of encoded images, parquet files or of the Hugging Face Hub, read through ``datasets``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3hr.data.headers import MAX_BYTES, NoContent, content_of
from d3hr.data.hub import quiet_client, unreachable
from d3hr.data.listing import holds_images
from d3hr.data.splits import chosen_split, split_kinds
from d3hr.errors import DataError, listed

PARQUET_EXPORT = "refs/convert/parquet"
"""Branch in which the Hub keeps every data set as parquet files, a folder for each configuration."""


_IMAGE_COLUMNS = (("image", "img"), ("file_name", "filename", "file", "path", "file_path", "image_path"))
_LABEL_COLUMNS = (("label", "labels", "fine_label"), ("class", "class_name", "category"))
"""Usual names of the columns; the second are for tables that have no column of the right kind."""


def open_table(
    name: str, split: str | None, image_column: str | None, label_column: str | None, config: str | None
) -> tuple[Table, str, tuple[str, ...]]:
    """Return the table called ``name``, a folder or a Hub id, the split that was read (by default the one to train on), and all splits."""

    offline = "" if Path(name).exists() else unreachable(name)
    try:
        with quiet_client(bool(offline)):
            splits = _load_table(name, config)
    except Exception as error:  # the Hub client raises from many unrelated trees
        if offline:
            raise DataError(
                f"{name} is no folder here, and the Hugging Face Hub cannot be reached.",
                found=f"no copy of it on this machine; {offline}",
                hint="check the path, or the network if it is a Hub id.",
            ) from error
        raise DataError(
            f"{name} cannot be opened as a data set.",
            found=f"{'' if Path(name).exists() else 'no folder of that name here; '}{type(error).__name__}: {error}",
            hint="check the path or Hub id.",
        ) from error
    return choose_table(name, splits, split, image_column, label_column, roots=_roots(name))


def choose_table(
    name: str,
    splits: Mapping[str, Any],
    split: str | None,
    image_column: str | None,
    label_column: str | None,
    *,
    roots: tuple[Path, ...] | None,
) -> tuple[Table, str, tuple[str, ...]]:
    """Return one of several tables of ``datasets``, the split that it is, and all splits; the arguments are those of :class:`Table`.

    Raises:
        DataError: which of them, or which of its columns, is to be read is not clear.
    """
    import datasets

    chosen = next(iter(splits)) if split is None and len(splits) == 1 else chosen_split(name, list(splits), split)
    table = splits[chosen]
    images = [column for column, feature in table.features.items() if isinstance(feature, datasets.Image)]
    encoded = images or [column for column, feature in table.features.items() if _holds_bytes(feature)]
    image = _choose_column(name, table.features, image_column, encoded, _IMAGE_COLUMNS, "--image-column")
    labels = [column for column, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    label = _choose_column(name, table.features, label_column, labels, _LABEL_COLUMNS, "--label-column")
    return Table(name, table, image, label, roots), chosen, tuple(splits)


class Table:
    """A table of encoded images, read through Hugging Face ``datasets``.

    Args:
        name: what it is called in messages.
        table: the table.
        image_column: the column of images.
        label_column: the column of their classes.
        roots: folders in which image files that the table names may lie, the first of which relative paths start from; None for any place.
    """

    def __init__(self, name: str, table: Any, image_column: str, label_column: str, roots: tuple[Path, ...] | None) -> None:
        import datasets

        self._name = name
        self._column = image_column
        self._roots = roots
        labels = table.features[label_column]
        values = table[label_column][:]
        if isinstance(labels, datasets.ClassLabel):
            names = tuple(str(label) for label in labels.names)
            self.labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
        else:
            distinct = sorted({value for value in values if isinstance(value, str | int)}, key=lambda value: (str(type(value)), value))
            names = tuple(str(value) for value in distinct)
            label_of = {value: label for label, value in enumerate(distinct)}
            self.labels = np.array([label_of[value] if isinstance(value, str | int) else -1 for value in values], dtype=np.int64)
        if len(set(names)) < len(names) or (self.labels < 0).any() or (self.labels >= len(names)).any():
            raise DataError(
                f"Column {label_column!r} of {name} does not give every image one named class.",
                found=f"{int((self.labels < 0).sum())} rows without a class, {len(names) - len(set(names))} repeated names",
                hint="choose another --label-column or --split.",
            )
        self.class_names = names
        self.ignored: tuple[str, ...] = ()
        try:
            self._images = table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
        except Exception as error:  # Arrow raises from a tree of its own
            raise DataError(
                f"Column {image_column!r} of {name} does not hold images.",
                found=f"{table.features[image_column]}",
                hint="choose another --image-column.",
            ) from error

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that is not in the table, or lies outside its folders, is empty."""
        rows = self._images[indices if isinstance(indices, range) else list(indices)][self._column]
        return [self._content(row) for row in rows]

    def _content(self, row: dict[str, Any] | None) -> bytes:
        if row is None:
            return b""
        if row["bytes"] is not None:
            return bytes(row["bytes"]) if len(row["bytes"]) <= MAX_BYTES else b""
        if not row["path"] or "\0" in row["path"]:
            return b""
        if self._roots is None:
            return content_of(Path(row["path"]))
        path = (self._roots[0] / row["path"]).resolve()
        if any(path.is_relative_to(root) for root in self._roots):
            return content_of(path)
        return NoContent(f"refused: {row['path']} lies outside the folder of the table, which could so name any picture of this machine")

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its row."""
        return f"{self._name} row {index}"


def _roots(name: str) -> tuple[Path, ...]:
    """Return the folders in which image files that a table names may lie: its own folder, or the caches of the Hub.

    Without this, a table from elsewhere could name, and so read, any picture on this machine.
    """
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    caches = (datasets.config.HF_CACHE_HOME, HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE)
    path = Path(name)
    return tuple(Path(root).resolve() for root in ((path if path.is_dir() else path.parent,) if path.exists() else caches))


def saved_by_datasets(path: Path) -> bool:
    """Return whether a folder was written by ``save_to_disk`` of ``datasets``."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json")) and any(path.rglob("*.arrow"))


def _holds_bytes(feature: Any) -> bool:
    """Return whether a column that is not declared as one of images may hold them: bytes, or bytes and a path."""
    return (isinstance(feature, dict) and "bytes" in feature) or getattr(feature, "dtype", "") in ("binary", "large_binary")


def _load_table(name: str, config: str | None) -> Any:
    """Return the splits of a table; of a Hub repository that is a script, which ``datasets`` no longer runs, the Hub's parquet export."""
    import datasets

    path = Path(name)
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if path.is_file() or (files and holds_images(path)):  # datasets would read the images, and not the table
        return datasets.load_dataset("parquet", data_files=_by_split(files), cache_dir=_own_cache(path))
    if saved_by_datasets(path):
        saved = datasets.load_from_disk(name)
        return saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    try:
        return datasets.load_dataset(name, config, cache_dir=_own_cache(Path(name)) if Path(name).is_dir() else None)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        return datasets.load_dataset(name, data_dir=config, revision=PARQUET_EXPORT)


def _by_split(files: Sequence[Path]) -> dict[str, list[str]]:
    """Return split -> its parquet files, by their names; those whose names say nothing are ``train``."""
    found: dict[str, list[str]] = {}
    for file in files:
        kind = next(iter(split_kinds(re.split(r"[-_.]", file.stem)).values()), "train")
        found.setdefault(kind, []).append(str(file))
    return found


def _own_cache(folder: Path) -> str:
    """Return a cache folder for one state of a local table: ``datasets`` takes two of the same name and card for the same data."""
    import datasets

    files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in (sorted(folder.rglob("*.parquet")) or [folder])]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "d3hr" / hashlib.sha256(repr(files).encode()).hexdigest()[:16])


def _choose_column(name: str, features: Any, given: str | None, fitting: list[str], usual: tuple[tuple[str, ...], ...], flag: str) -> str:
    """Return the column to use: the given one, or the first of the usual names, or the only one of the right kind."""
    likeliest, others = ([column for column in names if column in features][:1] for names in usual)
    candidates = [given] if given is not None else likeliest or fitting or others
    if len(candidates) != 1 or candidates[0] not in features:
        raise DataError(
            f"{name}: the column to use is not clear.",
            found=f"columns: {listed(list(features))}; of the right kind: {listed(fitting) or 'none'}",
            hint=f"name it with {flag}.",
        )
    return candidates[0]
