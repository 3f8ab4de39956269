"""Real images as they are: a choice of each class's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from d3hr.baselines.choosing import random_choice
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

    def choose(name: str) -> Tensor:
        return random_choice(images.counts[name], ipc, generator_for(seed, "random_real", name))

    return select_real(
        images, out, choose, method="random_real", ipc=ipc, image_size=image_size, settings={"seed": seed}, progress=progress
    )


def select_real(
    images: ImageData,
    out: str | Path,
    choose: Callable[[str], Tensor],
    *,
    method: str,
    ipc: int,
    image_size: int,
    settings: Mapping[str, Any],
    progress: Progress = SILENT,
) -> DistilledSet:
    """Write a set of chosen real images.

    Args:
        images: the real images.
        out: folder to write.
        choose: gives the positions, int64 [ipc], of the chosen images among those of one class.
        method: name of the choice.
        ipc: images per class.
        image_size: side in pixels.
        settings: what decides the choice.
        progress: where to report.

    Raises:
        DataError: a class has fewer than ``ipc`` images.
        OutputError: ``out`` holds something else.
    """
    require_images_per_class(ipc)
    require_enough(images, ipc)
    sized = images.at_size(image_size)
    starts = dict(zip(images.class_names, accumulate(images.counts.values(), initial=0), strict=False))
    return write_baseline(
        out,
        Origin(
            method=method,
            class_names=images.class_names,
            ipc=ipc,
            image_size=image_size,
            settings=settings,
            data={"source": images.source, "split": images.split, "fingerprint": images.fingerprint},
            prior={},
            real_counts=images.counts,
        ),
        lambda name: sized.gather(starts[name] + choose(name))[0],
        progress,
    )


def require_enough(images: ImageData, ipc: int) -> None:
    """Raise :class:`DataError` unless each class has ``ipc`` images."""
    small = [f"{name} ({count})" for name, count in images.counts.items() if count < ipc]
    if small:
        raise DataError(f"Some classes have fewer than {ipc} real images to draw.", found=listed(small), do="use a lower --ipc.")
