"""Prototypes of latents, noised and denoised under the name of their class (after D4M, arXiv 2407.15138)."""

from typing import Any

import torch
from torch import Tensor

from d3hr.distillation.ddim import forward_noise
from d3hr.distillation.mixture import k_means_centres
from d3hr.distillation.overrides import with_fields_of
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import generate_images
from d3hr.errors import NumericalError
from d3hr.methods.base import PriorMethodSettings
from d3hr.methods.features import class_features
from d3hr.methods.job import Job
from d3hr.seeds import derive_seed, generator_for
from d3hr.sets.distilled_set import DistilledSet


@with_fields_of(DistillSettings, {"steps", "denoising_guidance"})
class PrototypeSettings(PriorMethodSettings):
    """Settings of ``prototypes``: level, grid and guidance of a preset's denoising, and what differs from them.

    At level 0 prototypes are decoded as they are.
    """

    level: int | None = None
    """level that prototypes are noised to"""


def write_prototypes(job: Job, settings: PrototypeSettings) -> DistilledSet:
    """Write the k-means centres of each class's latents, as many as images, noised to a level and denoised.

    Noise is fresh, sqrt(a) z + sqrt(1 - a) e; centres and noise follow from the seed and the class's name.
    """
    job.require_real_images()
    prior = job.prior
    conditions = prior.denoiser.conditions(job.inputs.conditioning)
    chosen = settings.resolved
    level, steps, guidance = chosen.denoising_level, chosen.steps, chosen.denoising_guidance
    values: dict[str, Any] = {"seed": job.seed, "steps": steps, "denoising_level": level, "denoising_guidance": guidance}

    def images_of(name: str) -> Tensor:
        centres = k_means_centres(class_features(job, "latent", name), job.ipc, derive_seed(job.seed, "prototypes", name))
        clean = torch.from_numpy(centres).float().view(-1, *prior.latent_shape)
        noise = generator_for(job.seed, "prototype noise", name)
        noisy = forward_noise(prior.schedule, clean, level=level, steps=steps, generator=noise)
        with NumericalError.naming(name):
            return generate_images(prior, noisy, conditions[name], level=level, steps=steps, guidance_scale=guidance)

    return job.write(images_of, values, generated=True)
