"""What a distilled set must beat. A baseline is a set like any other, made without the method under test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.data import ImageData
from d3hr.distillation.drawing import draw_images
from d3hr.errors import DataError, NumericalError, SettingsError, listed
from d3hr.prior.conditioning import Conditioning, match_classes
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for
from d3hr.staging import StagedFolder
from d3hr.storage import DistilledSet, Origin, write_set


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
    _check_ipc(ipc)
    small = [f"{name} ({count})" for name, count in images.counts.items() if count < ipc]
    if small:
        raise DataError(f"Some classes have fewer than {ipc} real images to draw.", found=listed(small), do="use a lower --ipc.")
    sized = images.at_size(image_size)
    starts = dict(zip(images.class_names, _starts(list(images.counts.values())), strict=True))

    def images_of(name: str) -> Tensor:
        order = torch.randperm(images.counts[name], generator=generator_for(seed, "random_real", name))
        return sized.gather(starts[name] + order[:ipc])[0]

    return _write(
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


def prior_only(
    prior: Prior,
    class_names: tuple[str, ...],
    out: str | Path,
    *,
    ipc: int,
    steps: int = 50,
    guidance_scale: float = 4.0,
    conditioning: Sequence[Conditioning] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> DistilledSet:
    """Draw ``ipc`` images of each class from the prior: pure noise denoised from the top of the grid, no inversion, no matching.

    Args:
        prior: the diffusion prior.
        class_names: the classes to draw.
        out: folder to write.
        ipc: images per class.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance.
        conditioning: the prior's class for each class; by default they are matched by name.
        seed: seed of the noise; a class's images depend on it and on the class's name.
        progress: where to report.

    Raises:
        ClassMismatch: the prior lacks a class.
        OutputError: ``out`` holds something else.
        NumericalError: an image is not finite.
    """
    _check_ipc(ipc)
    matches = conditioning or match_classes(class_names, prior.class_names, of="the data")
    ids = {match.class_name: match.conditioning_id for match in matches}

    def images_of(name: str) -> Tensor:
        noise = torch.randn(ipc, *prior.latent_shape, generator=generator_for(seed, "prior_only", name))
        with NumericalError.naming(name):
            return draw_images(prior, noise, ids[name], level=steps - 1, steps=steps, guidance_scale=guidance_scale)

    settings: dict[str, Any] = {"seed": seed, "steps": steps, "guidance_scale": guidance_scale}
    return _write(
        out,
        Origin(
            method="prior_only",
            class_names=class_names,
            ipc=ipc,
            image_size=prior.image_size,
            settings=settings,
            data={},
            prior=prior.origin,
            real_counts={},
            conditioning=matches,
        ),
        images_of,
        progress,
    )


def _write(out: str | Path, origin: Origin, images_of: Any, progress: Progress) -> DistilledSet:
    stage = StagedFolder(out, origin.key())
    return DistilledSet.load(out) if stage.finished else write_set(stage, origin, images_of, progress=progress)


def _check_ipc(ipc: int) -> None:
    if ipc < 1:
        raise SettingsError("--ipc must be at least 1.", found=f"{ipc}", do="give the number of images per class.")


def _starts(counts: list[int]) -> list[int]:
    return [sum(counts[:index]) for index in range(len(counts))]
