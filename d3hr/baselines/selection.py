"""Real images as they are: a choice of each class's own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from d3hr.baselines.writing import require_images_per_class, write_baseline
from d3hr.data import ImageData
from d3hr.errors import DataError, listed
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for
from d3hr.storage import DistilledSet, Origin


def random_real(
    images: ImageData, out: str | Path, *, ipc: int, image_size: int, seed: int = 0, progress: Progress = SILENT
) -> DistilledSet:
    """Draw ``ipc`` real images of each class without replacement.

    Args:
        images: the real images.
        out: folder to write.
        ipc: images per class.
        image_size: side in pixels.
        seed: seed of the draw; a class's images depend on it and on the class's name.
        progress: where to report.

    Raises:
        DataError: a class has fewer than ``ipc`` images.
        OutputError: ``out`` holds something else.
    """
    require_images_per_class(ipc)
    small = [f"{name} ({count})" for name, count in images.counts.items() if count < ipc]
    if small:
        raise DataError(f"Some classes have fewer than {ipc} real images to draw.", found=listed(small), do="use a lower --ipc.")
    sized = images.at_size(image_size)
    starts = dict(zip(images.class_names, _starts(list(images.counts.values())), strict=True))

    def images_of(name: str) -> Tensor:
        order = torch.randperm(images.counts[name], generator=generator_for(seed, "random_real", name))
        return sized.gather(starts[name] + order[:ipc])[0]

    return write_baseline(
        out,
        Origin(
            method="random_real",
            class_names=images.class_names,
            ipc=ipc,
            image_size=image_size,
            settings={"seed": seed},
            data={"source": images.source, "split": images.split, "fingerprint": images.fingerprint},
            prior={},
            real_counts=images.counts,
        ),
        images_of,
        progress,
    )


def _starts(counts: list[int]) -> list[int]:
    return [sum(counts[:index]) for index in range(len(counts))]
