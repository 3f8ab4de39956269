"""The Gaussians of classes on disk, as safetensors: mean and std [C, D], count [C], and the standard errors [C, 2] of what is a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.subsampling import StandardError
from d3hr.staging import write_tensors

StatisticsDtype = Literal["float32", "float16"]


def write_gaussians(
    path: Path, gaussians: Sequence[ClassGaussian], dtype: StatisticsDtype = "float32", errors: Sequence[StandardError] = ()
) -> None:
    """Write Gaussians in float32, or in float16 at half the size and a relative error of 5e-4, with their standard errors, if any."""
    kind = getattr(torch, dtype)
    tensors = {
        "mean": torch.stack([gaussian.mean for gaussian in gaussians]).to(kind),
        "std": torch.stack([gaussian.std for gaussian in gaussians]).to(kind),
        "count": torch.tensor([gaussian.count for gaussian in gaussians]),
    }
    if errors:
        tensors["standard_error"] = torch.tensor([[error.mean, error.std] for error in errors], dtype=torch.float64)
    write_tensors(path, tensors)


def read_gaussians(path: Path) -> list[ClassGaussian]:
    """Read what :func:`write_gaussians` wrote, as float64."""
    tensors = load_file(path)
    rows = zip(tensors["mean"].double(), tensors["std"].double(), tensors["count"].tolist(), strict=True)
    return [ClassGaussian(mean, std, count) for mean, std, count in rows]


class KeptGaussians(Mapping[str, ClassGaussian]):
    """The Gaussians of the classes that are finished, a file each, read when they are looked up: memory holds none of them.

    Args:
        folder: where the files lie; it is made if it is not there.
        class_names: all classes, finished or not, in their order.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        folder.mkdir(exist_ok=True)
        self._files = {name: folder / f"{index:06d}.safetensors" for index, name in enumerate(class_names)}

    def keep(self, class_name: str, gaussian: ClassGaussian, error: StandardError, dtype: StatisticsDtype) -> None:
        """Write the Gaussian of a class with its standard error, which makes it finished."""
        write_gaussians(self._files[class_name], [gaussian], dtype, [error])

    def error(self, class_name: str) -> StandardError:
        """Return the standard error of a class's Gaussian."""
        mean, std = load_file(self._files[class_name])["standard_error"][0].tolist()
        return StandardError(mean, std)

    def __getitem__(self, class_name: str) -> ClassGaussian:
        file = self._files[class_name]
        if not file.is_file():
            raise KeyError(class_name)
        return read_gaussians(file)[0]

    def __contains__(self, class_name: object) -> bool:
        return class_name in self._files and self._files[str(class_name)].is_file()

    def __iter__(self) -> Iterator[str]:
        return (name for name, file in self._files.items() if file.is_file())

    def __len__(self) -> int:
        return sum(1 for _ in self)
