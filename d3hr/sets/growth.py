"""Which real images a set was made from, so that it is seen later which have come since, and which classes stay as they are.

Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from d3hr.data.dataset import ImageData
from d3hr.distillation.estimation import StandardError
from d3hr.errors import DistilledSetError, listed
from d3hr.fileio.atomic import read_tensors, write_json, write_tensors
from d3hr.fileio.staging import remove
from d3hr.progress import Progress
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.entries import ClassEntry
from d3hr.sets.manifest import require_inside
from d3hr.sets.statistics import KeptMixtures
from d3hr.sets.writer import CONTENTS

Kind = Literal["same", "grown", "changed", "new"]


@dataclass(frozen=True)
class Change:
    """What has become of the images of a class."""

    kind: Kind
    """``same``: none has come or gone, and their order is the same; ``grown``: some have come; ``changed``: some have gone, or are in
    another order; ``new``: the set has no such class."""
    added: tuple[int, ...] = ()
    """Indices, in the class, of the images that have come."""


def write_contents(folder: Path, images: ImageData) -> None:
    """Write :data:`~d3hr.sets.writer.CONTENTS` into the folder of a set."""
    digests = [images.digests(name) for name in images.class_names]
    counts = torch.tensor([len(each) for each in digests])
    write_tensors(folder / CONTENTS, {"digests": torch.from_numpy(np.concatenate(digests)), "counts": counts})


def changes_since(distilled: DistilledSet, images: ImageData) -> dict[str, Change]:
    """Return what has become of each class of the images since a set was made from them, in the images' order of classes.

    Raises:
        DistilledSetError: the set does not say which images it was made from, or a class of it has no images any more.
    """
    file = require_inside(distilled.path, distilled.path / CONTENTS)
    if not file.is_file():
        raise DistilledSetError(
            f"{distilled.path} does not say which images it was made from.", found=f"no {CONTENTS} in it", hint="distil anew."
        )
    tensors = read_tensors(file)
    counts = tensors["counts"].tolist()
    if len(counts) != len(distilled.class_names) or min(counts) < 0 or sum(counts) != len(tensors["digests"]):
        raise DistilledSetError(f"{file} does not fit the set.", found=f"{len(counts)} classes in it", hint="distil anew.")
    parts = np.split(tensors["digests"].numpy(), np.cumsum(counts)[:-1])
    known = dict(zip(distilled.class_names, parts, strict=True))
    if gone := [name for name in known if name not in images.class_names]:
        raise DistilledSetError(
            f"{len(gone)} class(es) of {distilled.path} have no images in {images.source}.",
            found=listed(gone),
            hint="restore their images, or distil anew without them.",
        )
    return {name: _change(known.get(name), images.digests(name)) for name in images.class_names}


def _change(before: NDArray[np.int64] | None, now: NDArray[np.int64]) -> Change:
    if before is None:
        return Change("new")
    if np.array_equal(before, now):
        return Change("same")
    added = ~np.isin(now, before)
    return Change("grown", tuple(np.flatnonzero(added).tolist())) if np.array_equal(now[~added], before) else Change("changed")


def reuse_classes(folder: Path, distilled: DistilledSet, changes: dict[str, Change], progress: Progress) -> None:
    """Put what a set has of the classes that are the same into a staged folder, where a run takes it for its own finished work."""
    names = list(changes)
    same = [name for name in names if changes[name].kind == "same"]
    entries = {entry.name: entry for entry in distilled.manifest.classes}
    settings = distilled.manifest.distill_settings
    kept = KeptMixtures(folder / "statistics", names, settings.modes, settings.rank, progress) if settings and distilled.mixtures else None
    for name in same:
        entry = entries[name]
        if kept is not None and settings is not None and name not in kept:
            kept.keep(name, distilled.mixtures[name], _error(entry), settings.statistics_dtype)
        if entry.sources:
            place = folder / "chosen" / f"{names.index(name):06d}.json"
            place.parent.mkdir(exist_ok=True)
            write_json(place, {"chosen": [source.index for source in entry.sources]})
        if distilled.ipc and not (folder / "train" / entry.folder).is_dir():
            _copy_class(distilled.path, folder, entry)


def _error(entry: ClassEntry) -> StandardError:
    return StandardError(entry.sample.mean_error, entry.sample.std_error) if entry.sample else StandardError(0.0, 0.0)


def _copy_class(source: Path, folder: Path, entry: ClassEntry) -> None:
    partial = folder / "train" / f".{entry.folder}.part"
    remove(partial)
    partial.mkdir(parents=True)
    for file in entry.files(source):
        copyfile(require_inside(source, file), partial / file.name)
    partial.replace(folder / "train" / entry.folder)


def in_order_of(class_names: Sequence[str], images: ImageData) -> ImageData:
    """Return images whose classes have the order of ``class_names``, so that these keep their labels; other classes follow."""
    others = [name for name in images.class_names if name not in class_names]
    return images.ordered([*(name for name in class_names if name in images.class_names), *others])
