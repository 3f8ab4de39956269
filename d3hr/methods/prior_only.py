"""Images drawn from a diffusion prior without the inversion of real ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from d3hr.distillation.overrides import with_fields_of
from d3hr.distillation.presets import DistillOptions
from d3hr.distillation.settings import USUAL_STEPS, DistillSettings
from d3hr.distillation.tasks import generate_images
from d3hr.errors import NumericalError, require_at_least, require_kind
from d3hr.execution.base import SERIAL, Execution
from d3hr.methods.base import PriorMethodSettings
from d3hr.methods.job import Job, write_whole_set
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.conditions import Condition
from d3hr.prior.model import OPEN_PRIOR, Prior
from d3hr.progress import BY_DEFAULT, Progress
from d3hr.seeds import generator_for
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.manifest import Manifest


@with_fields_of(DistillSettings, {"steps", "denoising_guidance"})
class PriorOnlySettings(PriorMethodSettings):
    """Settings of ``prior_only``: grid and guidance of a preset, and what differs from them."""

    fixed: ClassVar[DistillOptions] = {"level": "auto"}  # levels have no effect, but must be on the grid


def write_prior_only(job: Job, settings: PriorOnlySettings) -> DistilledSet:
    """Write :func:`prior_only`."""
    return prior_only(
        job.prior,
        job.images.class_names,
        job.out,
        ipc=job.ipc,
        steps=settings.resolved.steps,
        guidance_scale=settings.resolved.denoising_guidance,
        conditioning=job.inputs.conditioning,
        seed=job.seed,
        execution=job.execution,
        progress=job.progress,
    )


@dataclass(frozen=True)
class NoiseDenoiser:
    """Draws the images of a class from pure noise, as work whose tasks are class names."""

    prior: Prior
    conditions: Mapping[str, Condition]
    ipc: int
    steps: int
    guidance_scale: float
    seed: int

    def open(self) -> Callable[[str], Tensor]:
        """Return the function that gives the images of a class, float [K, 3, H, W] in [-1, 1]."""
        return self._images

    def _images(self, name: str) -> Tensor:
        prior, last = self.prior, self.steps - 1
        generator = generator_for(self.seed, "prior_only", name)
        noise = prior.schedule.noise_scale * torch.randn(self.ipc, *prior.latent_shape, generator=generator)
        with NumericalError.naming(name):
            return generate_images(prior, noise, self.conditions[name], level=last, steps=self.steps, guidance_scale=self.guidance_scale)


def prior_only(
    prior: Prior,
    class_names: tuple[str, ...],
    out: str | Path,
    *,
    ipc: int,
    steps: int = USUAL_STEPS,
    guidance_scale: float = 4.0,
    conditioning: Sequence[Conditioning] | None = None,
    seed: int = 0,
    execution: Execution = SERIAL,
    progress: Progress = BY_DEFAULT,
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
        execution: where images are drawn, each class a task; the set does not depend on it.
        progress: where to report.

    Raises:
        ClassMismatch: the prior lacks a class.
        OutputError: ``out`` holds something else.
        NumericalError: an image is not finite.
    """
    require_kind("prior", prior, Prior, OPEN_PRIOR)
    require_at_least("--ipc", ipc)
    matches = conditioning or prior.denoiser.match(class_names, of="the data")
    work = NoiseDenoiser(prior, prior.denoiser.conditions(matches), ipc, steps, guidance_scale, seed)
    settings: dict[str, Any] = {"seed": seed, "steps": steps, "guidance_scale": guidance_scale}
    return write_whole_set(
        out,
        Manifest.of(
            method="prior_only",
            class_names=class_names,
            ipc=ipc,
            image_size=prior.image_size,
            settings=settings,
            prior=prior.record,
            conditioning=matches,
        ),
        lambda names: ((names[index], images) for index, images in execution.run(work, names)),
        progress,
    )
