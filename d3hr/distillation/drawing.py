"""Turns noisy latents of one class into pictures, in batches.

Legend: K images, H = W image side, C h w latent axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from d3hr.distillation.inversion import check_finite, denoise
from d3hr.prior.model import Prior


def draw_images(
    prior: Prior, latents: Tensor, conditioning_id: int, *, level: int, steps: int, guidance_scale: float, batch_size: int = 64
) -> Tensor:
    """Return images float [K, 3, H, W] in [-1, 1] (on the CPU) of latents [K, C, h, w] of one class.

    Args:
        prior: the diffusion prior.
        latents: latents at ``level``.
        conditioning_id: row of the prior's label table.
        level: where the latents stand.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance.
        batch_size: images in one network call.

    Raises:
        NumericalError: a latent or a pixel is not finite.
    """
    pictures = []
    for noisy in latents.split(batch_size):
        labels = torch.full((len(noisy),), conditioning_id)
        clean = denoise(prior, noisy.to(prior.device), labels, level=level, steps=steps, guidance_scale=guidance_scale)
        pictures.append(prior.decode(clean).cpu())
        check_finite(pictures[-1], "decoding", "in its pixels")
    return torch.cat(pictures)
