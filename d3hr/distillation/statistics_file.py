"""The Gaussians of classes in one safetensors file: mean and std [C, D], count [C]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from d3hr.distillation.matching import ClassGaussian
from d3hr.errors import DistilledSetError
from d3hr.staging import write_tensors

StatisticsDtype = Literal["float32", "float16"]
_DTYPES = {"mean": ("F32", "F16"), "std": ("F32", "F16"), "count": ("I64",)}

_MOST_HEADER = 2**16


def write_gaussians(path: Path, gaussians: Sequence[ClassGaussian], dtype: StatisticsDtype = "float32") -> None:
    """Write Gaussians in float32, or in float16 at half the size and a relative error of 5e-4."""
    kind = getattr(torch, dtype)
    tensors = {
        "mean": torch.stack([gaussian.mean for gaussian in gaussians]).to(kind),
        "std": torch.stack([gaussian.std for gaussian in gaussians]).to(kind),
        "count": torch.tensor([gaussian.count for gaussian in gaussians]),
    }
    write_tensors(path, tensors)


def read_gaussians(path: Path, *, classes: int = 1, most: int | None = None) -> list[ClassGaussian]:
    """Read what :func:`write_gaussians` wrote, as float64; the header is checked before any value is loaded.

    Args:
        path: the file.
        classes: how many classes it must hold, C.
        most: largest number of dimensions D.

    Raises:
        DistilledSetError: the file is damaged, of other classes or too many dimensions, or its values are no statistics.
    """
    largest = None if most is None else classes * (8 * most + 8) + _MOST_HEADER
    try:
        if largest is not None and path.stat().st_size > largest:  # safetensors maps the whole file into memory
            raise ValueError(f"{path.stat().st_size:,} bytes, of at most {largest:,}")
        with safe_open(path, framework="pt") as file:
            _check_header({name: file.get_slice(name) for name in file.keys()}, classes, most)  # noqa: SIM118 (no mapping)
            mean, std, count = (file.get_tensor(name) for name in ("mean", "std", "count"))
        if not (mean.isfinite().all() and std.isfinite().all() and (std >= 0).all() and (count >= 0).all()):
            raise ValueError("a mean or spread that is not finite, or a negative spread or count")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DistilledSetError(f"{path} is damaged.", found=str(error), do="make the set again.") from error
    return [ClassGaussian(*row) for row in zip(mean.double(), std.double(), count.tolist(), strict=True)]


def _check_header(slices: dict[str, Any], classes: int, most: int | None) -> None:
    if slices.keys() != _DTYPES.keys():
        raise ValueError(f"tensors {', '.join(sorted(slices)) or 'none'}, where mean, std and count are needed")
    shapes = {name: list(each.get_shape()) for name, each in slices.items()}
    for name, each in slices.items():
        if each.get_dtype() not in _DTYPES[name]:
            raise ValueError(f"{name} of type {each.get_dtype()}")
    if len(shapes["mean"]) != 2 or shapes["std"] != shapes["mean"] or shapes["mean"][0] != classes or shapes["count"] != [classes]:
        raise ValueError(f"shapes {shapes}, for {classes} class(es)")
    if shapes["mean"][1] < 1 or (most is not None and shapes["mean"][1] > most):
        raise ValueError(f"{shapes['mean'][1]:,} dimensions, of at most {most:,}" if most else "no dimensions")
