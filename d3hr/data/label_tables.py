"""Tables of labels next to image files: ``metadata.csv``, ``metadata.jsonl``, ``labels.csv`` and the like."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from d3hr.data.formats import IMAGE_SUFFIXES
from d3hr.data.headers import content_of
from d3hr.data.labels import Labelled, LabelledFiles, relative
from d3hr.data.listing import files_below, folders_in, has_images_in, holds_images, is_image
from d3hr.data.splits import chosen_split, split_kinds
from d3hr.errors import DataError, listed, printable

LABEL_SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Endings of tables that are read."""
_NAMES = tuple(name + suffix for name in ("metadata", "labels", "label") for suffix in LABEL_SUFFIXES)
"""Names of tables that are looked for."""
_FILES = ("file_name", "filename", "file", "image", "img", "path", "filepath", "file_path", "image_path", "image_id", "id", "name")
_LABELS = ("label", "labels", "class", "class_name", "category", "label_name", "target")
_SPLITS = ("split", "subset")
"""Usual names of the columns, in lower case, the likeliest first."""
_DEEPEST = 3
"""Most folders that are entered to find the table."""


class LabelTable(NamedTuple):
    """A table of labels, read.

    Attributes:
        path: the table.
        rows: column -> value, as text, of each row.
        file_column: the column of file names.
        label_column: the column of labels.
    """

    path: Path
    rows: list[dict[str, str]]
    file_column: str
    label_column: str


def read_table(path: Path, image_column: str | None, label_column: str | None) -> LabelTable | None:
    """Return a table of labels; None if it has no column of files and one of labels, and none are named.

    Raises:
        DataError: it is damaged, or a column that is named is not there.
    """
    rows = _rows(path, headed=image_column is not None or label_column is not None)
    columns = list(rows[0]) if rows else []
    file = _column(path, columns, image_column, _FILES, "--image-column")
    label = _column(path, columns, label_column, _LABELS, "--label-column")
    return LabelTable(path, rows, file, label) if file and label else None


def find_table(root: Path, split: str | None, image_column: str | None, label_column: str | None) -> tuple[LabelTable, str | None] | None:
    """Return the table of labels that says what the images of a folder are, and the split in whose folder it lies; None if none does.

    It lies in the folder, next to the images or to one folder of images; or so in each folder of a split; or in a folder that is alone in
    having images. Next to class folders it is no table of labels.
    """
    folder = root
    for _ in range(_DEEPEST):
        inner = [entry for entry in folders_in(folder) if holds_images(entry)]
        splits = split_kinds(entry.name for entry in inner)
        alone = len(inner) < 2 or len(splits) == len(inner)
        tables = _tables_in(folder, image_column, label_column) if alone else []
        if len(tables) > 1:
            raise DataError(
                f"Which table labels the images of {folder} is not clear.",
                found=listed([table.path.name for table in tables]),
                hint="give the path of one, in place of the folder.",
            )
        if tables:
            return tables[0], None
        if splits and alone:
            inside = {entry.name: _tables_in(entry, image_column, label_column) for entry in inner}
            if all(len(found) == 1 for found in inside.values()):
                chosen = chosen_split(folder, sorted(inside), split)
                return inside[chosen][0], chosen
        present = [name for name in _NAMES if (folder / name).exists()]
        if present and not inner and has_images_in(folder):
            raise DataError(
                f"{folder / present[0]} is next to images, and does not say what they are.",
                found=f"columns: {listed(list(next(iter(_rows(folder / present[0], headed=True)), {})))}",
                hint="name the columns of files and of labels with --image-column and --label-column.",
            )
        if len(inner) != 1 or has_images_in(folder):
            return None
        folder = inner[0]
    return None


def by_table(table: LabelTable, split: str | None) -> LabelledFiles:
    """Return the images that a table names, with its labels.

    A name is a path relative to the table's folder, or to the only folder there that has images; it may lack the suffix.

    Raises:
        DataError: a row names no file, one that is not there or lies elsewhere, one of another row, or has no label.
    """
    root = table.path.parents[0]
    litter: list[Path] = []
    files = {relative(file, root): file for file in files_below(root, litter)}
    inner = [entry.name for entry in folders_in(root) if holds_images(entry)]
    find = _finder(files, inner[0] if len(inner) == 1 else "")
    split_column = next((column for column in table.rows[0] if column.lower() in _SPLITS), None)
    rows: dict[str, Labelled] = {}
    bad = []
    for number, row in enumerate(table.rows, start=1):
        given, label = row[table.file_column], row[table.label_column]
        file = find(given)
        if not given:
            wrong = "no file"
        elif _is_outside(given):
            wrong = f"{given} lies outside the folder of the table"
        elif file is None:
            wrong = f"{given} is not there"
        elif not label:
            wrong = f"{given} has no label"
        elif file in rows:
            other = rows[file].label
            wrong = f"{given} was in a row before" + (f", as {other!r} and not as {label!r}" if other != label else "")
        else:
            rows[file] = Labelled(file, label, row[split_column] if split_column else None)
            continue
        bad.append(printable(f"row {number}: {wrong}"))
    if bad:
        raise DataError(
            f"{len(bad)} row(s) of {table.path} cannot be used.",
            found=listed(bad, separator="\n         "),
            hint="correct or remove them; paths are relative to the folder of the table.",
        )
    unnamed = [name for name, file in files.items() if name not in rows and file.name != table.path.name]
    return LabelledFiles(root, rows.values(), split, [*unnamed, *(relative(file, root) for file in litter)])


def _finder(files: Mapping[str, Path], images: str) -> Callable[[str], str | None]:
    """Return what finds the file that a row names, among ``files`` and in the folder ``images``."""
    without_suffix: dict[str, list[str]] = {}
    for name, file in files.items():
        if is_image(file):
            without_suffix.setdefault(name.removesuffix(file.suffix), []).append(name)

    def find(given: str) -> str | None:
        path = PurePosixPath(given.replace("\\", "/"))
        for candidate in (str(path), str(images / path)):
            if candidate in files:
                return candidate
            if len(without_suffix.get(candidate, ())) == 1:
                return without_suffix[candidate][0]
        return None

    return find


def _is_outside(given: str) -> bool:
    path = PurePosixPath(given.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or given[1:2] == ":"


def _tables_in(folder: Path, image_column: str | None, label_column: str | None) -> list[LabelTable]:
    """Return the tables of labels directly in a folder; a table of other things, such as captions, is none."""
    present = [folder / name for name in _NAMES if (folder / name).exists()]
    tables = [read_table(path, None if len(present) > 1 else image_column, None if len(present) > 1 else label_column) for path in present]
    return [table for table in tables if table is not None]


def _rows(path: Path, *, headed: bool) -> list[dict[str, str]]:
    """Return the rows of a table as texts. The first row of a CSV file names its columns, except where it is not ``headed`` for certain,
    and begins with the name of an image.
    """
    try:
        text = content_of(path).decode("utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
            if not all(isinstance(value, dict) for value in values):
                raise ValueError("a line that is no object")
            return [{str(key): _text(value) for key, value in row.items()} for row in _filled(values)]
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=text.partition("\n")[0].count)
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path} is no table.", found=printable(str(error)), hint="save it as UTF-8, a row per image.") from error
    if not lines:
        return []
    if not headed and len(lines[0]) == 2 and PurePosixPath(lines[0][0]).suffix.lower() in IMAGE_SUFFIXES:
        lines = [[_FILES[0], _LABELS[0]], *lines]
    header = lines[0]
    if len(set(header)) < len(header) or any(len(line) > len(header) for line in lines):
        odd = next((number for number, line in enumerate(lines) if len(line) > len(header)), 0)
        found = f"{len(lines[odd])} values in row {odd}, of {len(header)} columns" if odd else f"columns: {listed(header)}"
        raise DataError(f"{path} is no table.", found=printable(found), hint="give each column one name, and quote values with commas.")
    return [dict(zip(header, [*line, *[""] * (len(header) - len(line))], strict=True)) for line in lines[1:]]


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows that all have the columns of any."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def _text(value: object) -> str:
    return "" if value is None else str(value) if isinstance(value, str | int) else json.dumps(value)


def _column(path: Path, columns: Sequence[str], given: str | None, usual: Sequence[str], flag: str) -> str | None:
    """Return the column to use: the given one, or the likeliest; None if there is none."""
    if given is not None:
        if given not in columns:
            raise DataError(f"{path} has no column {given!r}.", found=f"columns: {listed(columns)}", hint=f"name one of these with {flag}.")
        return given
    by_name = {column.lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)
