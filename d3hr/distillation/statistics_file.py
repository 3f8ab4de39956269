"""The Gaussians of classes in one safetensors file: mean and std [C, D], count [C]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from d3hr.distillation.matching import ClassGaussian
from d3hr.staging import read_tensors, write_tensors

StatisticsDtype = Literal["float32", "float16"]


def write_gaussians(path: Path, gaussians: Sequence[ClassGaussian], dtype: StatisticsDtype = "float32") -> None:
    """Write Gaussians in float32, or in float16 at half the size and a relative error of 5e-4."""
    kind = getattr(torch, dtype)
    tensors = {
        "mean": torch.stack([gaussian.mean for gaussian in gaussians]).to(kind),
        "std": torch.stack([gaussian.std for gaussian in gaussians]).to(kind),
        "count": torch.tensor([gaussian.count for gaussian in gaussians]),
    }
    write_tensors(path, tensors)


def read_gaussians(path: Path) -> list[ClassGaussian]:
    """Read what :func:`write_gaussians` wrote, as float64.

    Raises:
        DamagedFile: the file is not what was written.
    """
    tensors = read_tensors(path)
    rows = zip(tensors["mean"].double(), tensors["std"].double(), tensors["count"].tolist(), strict=True)
    return [ClassGaussian(mean, std, count) for mean, std, count in rows]
