"""How faithful inversion and denoising are to an image, how faithful the autoencoder alone is, and what a prior draws, to look at.

Legend: N images, H = W image side.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field

from d3hr.data.codec import to_uint8
from d3hr.data.dataset import ImageData
from d3hr.data.showing import MAX_COLUMNS, contact_sheet
from d3hr.distillation.ddim import check_finite
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import generate_images, invert_by_settings
from d3hr.errors import NumericalError
from d3hr.prior.autoencoder import psnr_db
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import Prior
from d3hr.seeds import generator_for

DRAWN_STEPS, DRAWN_GUIDANCE = 50, 4.0
"""Grid and guidance of the images that a prior draws to be looked at."""
CLASSES, IMAGES = 8, 8
"""Size of the sample: classes evenly spread, their first images."""


@dataclass(frozen=True)
class RoundTrip:
    """Fidelity of a round trip of a number of images."""

    psnr_db: float | None = None
    """PSNR of decode(denoise(invert(encode(images)))) against the images, in dB."""
    autoencoder_psnr_db: float | None = None
    """PSNR of decode(encode(images)) against the images, in dB."""
    images: int | None = None
    seconds_per_image: Annotated[float | None, Field(exclude=True)] = None
    """Time to invert one of them, in batches of 8; never written, since it differs from run to run."""


def round_trip(images: ImageData, prior: Prior, conditioning: Sequence[Conditioning], settings: DistillSettings) -> RoundTrip:
    """Send a sample of the classes' real images, at the prior's size, to the statistics level and back."""
    chosen = [conditioning[int(place)] for place in torch.linspace(0, len(conditioning) - 1, min(CLASSES, len(conditioning)))]
    level, steps = settings.statistics_level, settings.steps
    real, back, decoded, seconds = [], [], [], 0.0
    for match in chosen:
        pictures = next(images.batches(match.class_name, IMAGES))
        with NumericalError.naming(match.class_name):
            clean = prior.encode(pictures)
            check_finite(clean, "encoding", "in its latents")
            start = time.perf_counter()
            condition = prior.denoiser.conditions([match])[match.class_name]
            noisy = invert_by_settings(prior, clean, condition, settings)
            seconds += time.perf_counter() - start
            guidance, solver = settings.denoising_guidance, settings.solver
            back.append(generate_images(prior, noisy, condition, level=level, steps=steps, guidance_scale=guidance, solver=solver))
        real.append(pictures)
        decoded.append(prior.decode(clean).cpu())
    original = torch.cat(real)
    return RoundTrip(psnr_db(original, torch.cat(back)), psnr_db(original, torch.cat(decoded)), len(original), seconds / len(original))


def prior_sheet(images: ImageData, prior: Prior) -> bytes:
    """Return a PNG to look at: the first real image of each of the first ten classes, what the autoencoder makes of it, and a drawn one.

    The classes of the images are those of the prior, as after a fit.
    """
    names = images.class_names[:MAX_COLUMNS]
    sized = images.at_size(prior.image_size)
    real = torch.cat([sized.pick(name, [0]) for name in names])
    drawn = []
    for name, condition in prior.conditions(names).items():
        noise = prior.schedule.noise_scale * torch.randn(1, *prior.latent_shape, generator=generator_for(0, "prior_sheet", name))
        drawn.append(generate_images(prior, noise, condition, level=DRAWN_STEPS - 1, steps=DRAWN_STEPS, guidance_scale=DRAWN_GUIDANCE))
    rows = {"real": real, "reconstructed": prior.decode(prior.encode(real)), "drawn": torch.cat(drawn)}
    return contact_sheet({name: to_uint8(pictures) for name, pictures in rows.items()})
