"""Images drawn from a diffusion prior without the inversion of real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.baselines.writing import require_images_per_class, write_baseline
from d3hr.data import ImageData
from d3hr.distillation.drawing import draw_images
from d3hr.distillation.inversion import diffuse
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import NumericalError
from d3hr.prior.conditioning import Conditioning, match_classes
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for
from d3hr.storage import DistilledSet, Origin


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
    require_images_per_class(ipc)
    matches = conditioning or match_classes(class_names, prior.class_names, of="the data")
    ids = {match.class_name: match.conditioning_id for match in matches}

    def images_of(name: str) -> Tensor:
        noise = torch.randn(ipc, *prior.latent_shape, generator=generator_for(seed, "prior_only", name))
        with NumericalError.naming(name):
            return draw_images(prior, noise, ids[name], level=steps - 1, steps=steps, guidance_scale=guidance_scale)

    settings: dict[str, Any] = {"seed": seed, "steps": steps, "guidance_scale": guidance_scale}
    return write_baseline(
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


def prototypes(
    prior: Prior,
    images: ImageData,
    centres_of: Callable[[str], Tensor],
    out: str | Path,
    *,
    ipc: int,
    settings: DistillSettings,
    conditioning: Sequence[Conditioning],
    progress: Progress = SILENT,
) -> DistilledSet:
    """Denoise prototypes of each class's latents from a level, to which noise carries them (the idea of D4M, arXiv 2407.15138).

    Args:
        prior: the diffusion prior.
        images: the real images, for the record.
        centres_of: gives the prototypes of one class, clean latents [ipc, C * h * w].
        out: folder to write.
        ipc: images per class.
        settings: steps, level and guidance of denoising, and the seed of the noise.
        conditioning: the prior's class for each class.
        progress: where to report.

    Raises:
        OutputError: ``out`` holds something else.
        NumericalError: an image is not finite.
    """
    require_images_per_class(ipc)
    ids = {match.class_name: match.conditioning_id for match in conditioning}

    def images_of(name: str) -> Tensor:
        clean = centres_of(name).view(-1, *prior.latent_shape)
        noise = torch.randn(clean.shape, generator=generator_for(settings.seed, "prototypes", name))
        noisy = diffuse(prior.schedule, clean, noise, level=settings.denoising_level, steps=settings.steps)
        with NumericalError.naming(name):
            return draw_images(
                prior, noisy, ids[name], level=settings.denoising_level, steps=settings.steps, guidance_scale=settings.denoising_guidance
            )

    names = ("steps", "denoising_level", "denoising_guidance", "seed")
    origin = Origin(
        method="prototypes",
        class_names=images.class_names,
        ipc=ipc,
        image_size=prior.image_size,
        settings={name: getattr(settings, name) for name in names},
        data={"source": images.source, "split": images.split, "fingerprint": images.fingerprint},
        prior=prior.origin,
        real_counts=images.counts,
        conditioning=conditioning,
    )
    return write_baseline(out, origin, images_of, progress)
