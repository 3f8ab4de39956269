"""Latents of images and images of latents, by any of diffusers' image autoencoders, and how a new autoencoder is trained.

Legend: N images, H = W image side, C h w latent axes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from d3hr.data.dataset import ImageData
from d3hr.data.transfer import to_device
from d3hr.prior.fit_context import FitContext
from d3hr.prior.presets import TrainingSettings
from d3hr.prior.trainer import Curve

AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
"""The diffusers classes that d3hr can use."""
_CHUNK = 64
_MOST_DB = 100.0
"""PSNR of identical images, instead of infinity."""


def to_latents(vae: Any, images: Tensor) -> Tensor:
    """Return the latents [N, C, h, w] (float32, unit scale; posterior means of an ``AutoencoderKL``) of images [N, 3, H, W] in [-1, 1]."""
    encoded = vae.encode(images.to(vae.device, vae.dtype))
    raw = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
    return torch.as_tensor((raw.float() - _shift(vae)) * vae.config.scaling_factor)


def to_images(vae: Any, latents: Tensor) -> Tensor:
    """Return the images [N, 3, H, W] (float32, clamped to [-1, 1]) of latents [N, C, h, w] of unit scale."""
    raw = latents.to(vae.device, torch.float32) / vae.config.scaling_factor + _shift(vae)
    return torch.as_tensor(vae.decode(raw.to(vae.dtype)).sample.float().clamp(-1, 1))


def psnr_db(x: Tensor, y: Tensor) -> float:
    """Return the peak signal-to-noise ratio of images [N, 3, H, W] in [-1, 1], in dB: 10 log10(4 / mean squared error), at most 100."""
    parts = zip(x.split(_CHUNK), y.split(_CHUNK), strict=True)
    error = sum(float((a.cpu().double() - b.cpu().double()).square().sum()) for a, b in parts) / x.numel()
    return min(_MOST_DB, 10 * math.log10(4 / error)) if error else _MOST_DB


def downsampling(vae: Any) -> int:
    """Return the side of an image over the side of its latent: 2 to the number of halvings."""
    widths = getattr(vae.config, "encoder_block_out_channels", None) or vae.config.block_out_channels
    return int(2 ** (len(widths) - 1))


def _shift(vae: Any) -> float:
    return float(vae.config.get("shift_factor") or 0.0)


def train_autoencoder(
    vae: Any, images: ImageData, context: FitContext, *, settings: TrainingSettings, kl_weight: float, max_seconds: float | None = None
) -> Curve:
    """Train ``vae`` in place to reconstruct the images, until the steps or the seconds are over, and return the loss curve.

    It is an ``AutoencoderKL``, or an ``AutoencoderDC``, whose latents have no distribution; ``kl_weight`` is that of the KL term next to
    the mean absolute and mean squared error.
    """
    batches = context.batches("autoencoder", len(images), settings)

    def loss(network: nn.Module, batch: Tensor, noise: torch.Generator) -> Tensor:
        return torch.as_tensor(network(to_device(batch, context.process.device), noise))

    network = _Loss(vae.to(memory_format=torch.channels_last).train().requires_grad_(True), kl_weight)
    curve = context.train("autoencoder", network, lambda step: images.gather(batches(step))[0], loss, settings, max_seconds)
    vae.eval().requires_grad_(False)
    return curve


class _Loss(nn.Module):
    """|x - x'| + (x - x')^2 + w KL, with x' decoded from a sample of the posterior; errors averaged over values, the KL over images.

    An autoencoder without a posterior decodes the latent itself, and has no KL term.
    """

    def __init__(self, vae: Any, kl_weight: float) -> None:
        super().__init__()
        self.vae, self.kl_weight = vae, kl_weight

    def forward(self, x: Tensor, noise: torch.Generator) -> Tensor:
        encoded = self.vae.encode(x)
        posterior = getattr(encoded, "latent_dist", None)
        latents = encoded[0] if posterior is None else posterior.sample(noise)
        error = self.vae.decode(latents).sample.float() - x
        value: Tensor = error.abs().mean() + error.square().mean()
        return value if posterior is None else value + self.kl_weight * posterior.kl().mean()
