"""The Gaussians of classes on disk, as safetensors: mean and std [C, D], count [C], and standard errors [C, 2] where a sample was taken.

Gaussians of rank R also have loadings [C, R, D]. Mixtures of m modes have a second axis for these: [C, m, D], [C, m] and [C, m, R, D].
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from d3hr.distillation.estimation import StandardError
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.settings import StatisticsDtype
from d3hr.errors import DistilledSetError
from d3hr.fileio.atomic import load_if_valid, read_tensors
from d3hr.fileio.rows import RowLayout, write_rows
from d3hr.progress import Progress

_DTYPES = {"mean": ("F32", "F16"), "std": ("F32", "F16"), "count": ("I64",), "loadings": ("F32", "F16"), "standard_error": ("F64",)}
_MOST_HEADER = 2**16
"""Most bytes of a file that are not values."""


def write_mixtures(
    path: Path, mixtures: Collection[ClassMixture], dtype: StatisticsDtype = "float32", errors: Sequence[StandardError] = ()
) -> None:
    """Write classes of equally many modes in float32, or in float16 at half the size and a relative error of 5e-4.

    Gaussians of a rank have as many loadings (:meth:`~d3hr.distillation.mixture.ClassMixture.truncate_rank`), written as they are: what
    was read is written again to the same bytes. Classes are taken one after the other, and memory holds one at a time. ``errors`` has an
    entry for each class, or none.
    """
    first = next(iter(mixtures))
    kind = getattr(torch, dtype)
    axes = (len(mixtures), len(first.modes)) if len(first.modes) > 1 else (len(mixtures),)
    layouts = {name: RowLayout(kind, (*axes, first.dimensions)) for name in ("mean", "std")} | {"count": RowLayout(torch.int64, axes)}
    if first.rank:
        layouts["loadings"] = RowLayout(kind, (*axes, first.rank, first.dimensions))
    if errors:
        layouts["standard_error"] = RowLayout(torch.float64, (len(mixtures), 2))
    write_rows(path, layouts, (_row(*each) for each in zip_longest(mixtures, errors)))


def _row(mixture: ClassMixture, error: StandardError | None) -> dict[str, Tensor]:
    """Return the row of a class in each tensor of a file."""
    row = {name: torch.stack([getattr(mode, name) for mode in mixture.modes]) for name in ("mean", "std")}
    row["count"] = torch.tensor(mixture.counts)
    if mixture.rank:
        row["loadings"] = torch.stack([mode.loadings for mode in mixture.modes if mode.loadings is not None])
    if error is not None:
        row["standard_error"] = torch.tensor([error.mean, error.std], dtype=torch.float64)
    return row


class StoredMixtures(Mapping[str, ClassMixture]):
    """What :func:`write_mixtures` wrote, as float64, read class by class at each look-up: memory holds none of them.

    The header is checked before any value is loaded, and the values of every class before the first is used. There must be a class of
    ``modes`` modes for each name, each of ``rank`` loadings, or of D if that is less, in at most ``most`` dimensions D.

    Raises:
        DistilledSetError: the file is damaged, of other classes or too many dimensions, or its values are not statistics.
        DamagedFile: its checksum does not fit.
    """

    def __init__(self, path: Path, class_names: Sequence[str], *, modes: int = 1, rank: int = 0, most: int | None = None) -> None:
        self._path, self._rows = path, {name: row for row, name in enumerate(class_names)}
        if most is not None:
            require_size(path, classes=len(class_names), modes=modes, rank=rank, most=most)  # safetensors maps the whole file into memory
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                self.dimensions = _check_header(slices, (len(class_names), modes, rank), most)
            read_tensors(path)  # compares the checksum
            for row in range(len(class_names)):
                self._read(row)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise DistilledSetError(f"{path} is damaged.", found=str(error), hint="make the set again.") from error

    def __getitem__(self, class_name: str) -> ClassMixture:
        return self._read(self._rows[class_name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _read(self, row: int) -> ClassMixture:
        with safe_open(self._path, framework="pt") as file:
            mean, std = (file.get_slice(name)[row].double() for name in ("mean", "std"))
            count = file.get_slice("count")[row].reshape(-1).tolist()
            loadings = file.get_slice("loadings")[row].double() if "loadings" in file.keys() else mean.new_empty(0)  # noqa: SIM118
        if not (mean.isfinite().all() and std.isfinite().all() and loadings.isfinite().all() and (std >= 0).all() and min(count) >= 0):
            raise ValueError("a mean or spread that is not finite, or a negative spread or count")
        if not any(count):
            raise ValueError("a class of no latents")
        of_modes = loadings.reshape(len(count), -1, mean.shape[-1])
        every = zip(mean.reshape(len(count), -1), std.reshape(len(count), -1), count, of_modes, strict=True)
        modes = [ClassGaussian(mean, std, seen, len(some), some if len(some) else None) for mean, std, seen, some in every]
        return ClassMixture(tuple(modes))


def require_size(path: Path, *, classes: int, modes: int = 1, rank: int = 0, most: int) -> None:
    """Refuse a file that is larger than statistics of so many classes, modes, loadings and dimensions; a missing file passes."""
    largest = classes * (modes * (4 * (2 + min(rank, most)) * most + 8) + 16) + _MOST_HEADER
    if path.is_file() and path.stat().st_size > largest:
        found = f"{path.stat().st_size:,} bytes, of at most {largest:,}"
        raise DistilledSetError(f"{path} is damaged.", found=found, hint="make the set again.")


def _check_header(slices: dict[str, Any], sizes: tuple[int, int, int], most: int | None) -> int:
    """Return the number of dimensions."""
    classes, modes, rank = sizes
    rows = (classes,) if modes == 1 else (classes, modes)
    shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
    *_, dimensions = shapes.get("mean") or (0,)
    needed = {"mean": (*rows, dimensions), "std": (*rows, dimensions), "count": rows}
    if rank:
        needed["loadings"] = (*rows, min(rank, dimensions), dimensions)
    if "standard_error" in shapes:
        needed["standard_error"] = (classes, 2)
    if shapes != needed:
        raise ValueError(f"shapes {shapes}, where {classes} class(es) of {modes} mode(s) and rank {rank} have {needed}")
    for name, each in slices.items():
        if each.get_dtype() not in _DTYPES[name]:
            raise ValueError(f"{name} of type {each.get_dtype()}")
    if dimensions < 1 or (most is not None and dimensions > most):
        raise ValueError(f"{dimensions:,} dimensions, of at most {most:,}" if most else "no dimensions")
    return int(dimensions)


class KeptMixtures(Mapping[str, ClassMixture]):
    """The statistics of the classes that are finished, one file per class, read at each look-up: memory holds none of them.

    ``class_names`` are all classes, finished or not. Damaged files of an earlier run are removed.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], modes: int, rank: int, progress: Progress) -> None:
        folder.mkdir(exist_ok=True)
        self._modes, self._rank = modes, rank
        self._files = {name: folder / f"{index:06d}.safetensors" for index, name in enumerate(class_names)}
        for file in self._files.values():
            load_if_valid(file, read_tensors, progress)

    def keep(self, class_name: str, mixture: ClassMixture, error: StandardError, dtype: StatisticsDtype) -> None:
        """Write the statistics of a class, which is then finished, with their standard error."""
        write_mixtures(self._files[class_name], [mixture.truncate_rank()], dtype, [error])

    def error(self, class_name: str) -> StandardError:
        """Return the standard error of a class's statistics."""
        with safe_open(self._files[class_name], framework="pt") as file:
            mean, std = file.get_tensor("standard_error")[0].tolist()
        return StandardError(mean, std)

    def __getitem__(self, class_name: str) -> ClassMixture:
        file = self._files[class_name]
        if not file.is_file():
            raise KeyError(class_name)
        return StoredMixtures(file, [class_name], modes=self._modes, rank=self._rank)[class_name]

    def __contains__(self, class_name: object) -> bool:
        return class_name in self._files and self._files[str(class_name)].is_file()

    def __iter__(self) -> Iterator[str]:
        return (name for name, file in self._files.items() if file.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)
