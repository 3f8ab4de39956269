"""Turns noisy latents of one class into pictures, in batches.

Legend: K images, H = W image side, C h w latent axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from d3hr.distillation.inversion import denoise
from d3hr.errors import NumericalError
from d3hr.prior.model import Prior


def draw_images(
    prior: Prior, latents: Tensor, class_name: str, *, level: int, steps: int, guidance_scale: float, batch_size: int = 64
) -> Tensor:
    """Return images float [K, 3, H, W] in [-1, 1] (on the CPU) of latents [K, C, h, w] of one class.

    Args:
        prior: the diffusion prior.
        latents: latents at ``level``.
        class_name: a class of the prior.
        level: where the latents stand.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance.
        batch_size: images in one network call.

    Raises:
        NumericalError: a latent is not finite.
    """
    label = prior.class_names.index(class_name)
    pictures = []
    for noisy in latents.split(batch_size):
        labels = torch.full((len(noisy),), label)
        clean = denoise(prior, noisy.to(prior.device), labels, level=level, steps=steps, guidance_scale=guidance_scale)
        check_finite(clean, f"denoising of class {class_name!r}")
        pictures.append(prior.decode(clean).cpu())
    return torch.cat(pictures)


def check_finite(latents: Tensor, work: str) -> None:
    """Raise :class:`NumericalError` if a latent is NaN or infinite."""
    if not torch.isfinite(latents).all():
        raise NumericalError(
            f"The {work} left the finite numbers.",
            found="NaN or infinity in its latents",
            do="use float32 or bfloat16 networks, or a lower guidance.",
        )
