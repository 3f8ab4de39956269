"""Latents of images and images of latents, by any of diffusers' image autoencoders.

Legend: N images, H = W image side, C h w latent axes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
"""The diffusers classes that d3hr can use."""


def to_latents(vae: Any, images: Tensor) -> Tensor:
    """Return the latents [N, C, h, w] (float32, unit scale; of ``AutoencoderKL`` the posterior mean) of images [N, 3, H, W] in [-1, 1]."""
    encoded = vae.encode(images.to(vae.device, vae.dtype))
    raw = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
    return torch.as_tensor((raw.float() - _shift(vae)) * vae.config.scaling_factor)


def to_images(vae: Any, latents: Tensor) -> Tensor:
    """Return the images [N, 3, H, W] (float32, clamped to [-1, 1]) of latents [N, C, h, w] of unit scale."""
    raw = latents.to(vae.device, torch.float32) / vae.config.scaling_factor + _shift(vae)
    return torch.as_tensor(vae.decode(raw.to(vae.dtype)).sample.float().clamp(-1, 1))


def downsampling(vae: Any) -> int:
    """Return how many pixels of a side become one of a latent's."""
    widths = getattr(vae.config, "encoder_block_out_channels", None) or vae.config.block_out_channels
    return int(2 ** (len(widths) - 1))


def _shift(vae: Any) -> float:
    return float(vae.config.get("shift_factor") or 0.0)
