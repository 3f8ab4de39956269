"""Carries clean latents up to a level with fresh noise, the way a diffusion model sees them in training, instead of by inversion.

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from d3hr.prior.schedule import Schedule


def forward_noise(schedule: Schedule, latents: Tensor, *, level: int, steps: int, generator: torch.Generator) -> Tensor:
    """Return sqrt(a) z + sqrt(1 - a) e of clean latents z [N, C, h, w], with e ~ N(0, I) (DDPM, arXiv 2006.11239, eq. 4).

    Latents of mean m and variance v then have mean sqrt(a) m and variance a v + 1 - a. At level 0 clean latents stay as they are.

    Args:
        schedule: the prior's schedule, which gives the signal variance a of the level.
        latents: clean latents.
        level: where to carry them, 0 to ``steps - 1``.
        steps: points of the grid.
        generator: gives the noise, one latent after the other, so that it does not depend on how they are batched.

    Raises:
        SettingsError: the level is not on the grid.
    """
    _, alpha = schedule.path(level, steps)[-1]
    if level == 0:
        return latents
    # One draw for all would not do: what PyTorch draws depends on how many numbers are asked for at once.
    noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for _ in latents])
    return torch.as_tensor(alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise.to(latents))
