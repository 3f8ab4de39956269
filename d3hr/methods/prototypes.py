"""Prototypes of latents, noised and denoised under the name of their class (after D4M, arXiv 2407.15138)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from d3hr.distillation.ddim import forward_noise
from d3hr.distillation.mixture import k_means_centres
from d3hr.distillation.settings import DistillSettings, with_fields_of
from d3hr.distillation.tasks import generate_images
from d3hr.errors import NumericalError
from d3hr.methods.base import DrawnSettings, Materials, Order, require_real_images, write_baseline
from d3hr.methods.features import class_features
from d3hr.prior.class_matching import conditioning_ids
from d3hr.seeds import derive_seed, generator_for
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.manifest import Manifest


@with_fields_of(DistillSettings, {"steps", "denoising_guidance"})
class PrototypeSettings(DrawnSettings):
    """A preset of d3hr, whose way from a level to images prototypes take, and what differs from it; None is the preset's.

    At level 0 prototypes are decoded as they are.
    """

    level: int | None = None
    """level that prototypes are noised to"""

    def check(self, materials: Materials) -> None:
        """Refuse what a prior cannot draw, and a level that is not on its grid."""
        super().check(materials)
        assert materials.prior is not None
        materials.prior.schedule.path(self.settings.denoising_level, self.settings.steps)


def write_prototypes(order: Order, settings: PrototypeSettings) -> DistilledSet:
    """Write the k-means centres of each class's latents, as many as images, noised to a level and denoised.

    Noise is fresh, sqrt(a) z + sqrt(1 - a) e; centres and noise follow from the seed and the class's name.
    """
    require_real_images(order.images, order.ipc)
    prior = order.prior
    ids = conditioning_ids(order.materials.conditioning)
    chosen = settings.settings
    level, steps, guidance = chosen.denoising_level, chosen.steps, chosen.denoising_guidance
    values: dict[str, Any] = {"seed": order.seed, "steps": steps, "denoising_level": level, "denoising_guidance": guidance}

    def images_of(name: str) -> Tensor:
        centres = k_means_centres(class_features(order, "latent", name), order.ipc, derive_seed(order.seed, "prototypes", name))
        clean = torch.from_numpy(centres).float().view(-1, *prior.latent_shape)
        noise = generator_for(order.seed, "prototype noise", name)
        noisy = forward_noise(prior.schedule, clean, level=level, steps=steps, generator=noise)
        with NumericalError.naming(name):
            return generate_images(prior, noisy, ids[name], level=level, steps=steps, guidance_scale=guidance)

    return write_baseline(
        order.out,
        Manifest.of(
            method=order.method,
            class_names=order.images.class_names,
            ipc=order.ipc,
            image_size=prior.image_size,
            settings=values,
            data=order.images.record,
            prior=prior.record,
            real_counts=order.images.counts,
            conditioning=order.materials.conditioning,
        ),
        images_of,
        order.progress,
    )
