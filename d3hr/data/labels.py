"""Image files whose labels come from a table next to them or from their names, not from the folders they lie in."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from d3hr.data.folders import in_order
from d3hr.data.listed_files import ListedFiles, Names
from d3hr.data.listing import files_below, is_image
from d3hr.data.splits import chosen_split, split_kinds
from d3hr.errors import DataError, SettingsError, listed, printable


class Labelled(NamedTuple):
    """An image file and its label.

    Attributes:
        file: path relative to the folder, with slashes.
        label: the name of its class.
        split: the split it belongs to, if the table says so.
    """

    file: str
    label: str
    split: str | None = None


class LabelledFiles(ListedFiles):
    """Image files in and below a folder, with a label each.

    Attributes:
        split: the split that is read; None where there are none.
        splits: all splits.
    """

    def __init__(self, root: Path, rows: Iterable[Labelled], split: str | None, others: Iterable[str] = ()) -> None:
        rows = list(rows)
        splits = _splits([row.file for row in rows]) if all(row.split is None for row in rows) else [row.split or "" for row in rows]
        self.splits = tuple(sorted(set(splits) - {""}))
        self.split = chosen_split(root, self.splits, split) if self.splits or split is not None else None
        read = [row for row, its in zip(rows, splits, strict=True) if self.split is None or its == self.split]
        self.class_names = in_order({row.label for row in read})
        label_of = {name: label for label, name in enumerate(self.class_names)}
        read.sort(key=lambda row: (label_of[row.label], row.file))
        self.labels = np.array([label_of[row.label] for row in read], dtype=np.int64)
        super().__init__(root, Names(row.file for row in read))
        self.ignored = tuple(map(printable, others))


def by_pattern(root: Path, pattern: str, split: str | None) -> LabelledFiles:
    """Return the images in and below a folder, each with the label that the group ``label`` of a pattern finds in its path.

    Args:
        root: the folder.
        pattern: a regular expression, searched in the path relative to the folder, with slashes.
        split: the split to read, where the folders in ``root`` are splits.

    Raises:
        SettingsError: the pattern is none, or has no group ``label``.
        DataError: it finds no label in some of the images.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingsError("--label-pattern is no regular expression.", found=f"{pattern!r}: {error}", hint=_EXAMPLE) from error
    if "label" not in compiled.groupindex:
        raise SettingsError("--label-pattern has no group called label.", found=repr(pattern), hint=_EXAMPLE)
    litter: list[Path] = []
    files = list(files_below(root, litter))
    images = [relative(file, root) for file in files if is_image(file)]
    found = {image: compiled.search(image) for image in images}
    labels = {image: match["label"] for image, match in found.items() if match and match["label"]}
    if missing := [printable(image) for image in images if image not in labels]:
        raise DataError(
            f"--label-pattern finds no label in {len(missing)} of {len(images)} image(s) of {root}.",
            found=listed(missing),
            hint="change the pattern, or move these files elsewhere.",
        )
    if not images:
        raise DataError(f"{root} holds no images.", found=f"{len(files)} file(s)", hint="give a folder of images.")
    others = [relative(file, root) for file in [*files, *litter] if relative(file, root) not in labels]
    return LabelledFiles(root, [Labelled(image, label) for image, label in labels.items()], split, others)


_EXAMPLE = r"""for cat_0001.jpg give '(?P<label>[a-z]+)_\d+'."""


def relative(file: Path, root: Path) -> str:
    """Return the path of a file below a folder, with slashes."""
    return PurePosixPath(file.relative_to(root)).as_posix()


def _splits(files: Sequence[str]) -> list[str]:
    """Return the split of each file where all lie in folders that are called so; empty texts otherwise."""
    tops = [PurePosixPath(file).parts[0] if "/" in file else "" for file in files]
    return tops if set(split_kinds(set(tops))) == set(tops) else [""] * len(files)
