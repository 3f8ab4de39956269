"""Trains an autoencoder on images.

Legend: N images, H = W image side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from d3hr.data import ImageData
from d3hr.prior.optimization import Curve, Run, optimise
from d3hr.prior.presets import Training


def train_autoencoder(
    vae: Any, images: ImageData, run: Run, *, training: Training, kl_weight: float, max_seconds: float | None = None
) -> Curve:
    """Train ``vae`` in place to give images [N, 3, H, W] back.

    Args:
        vae: an untrained diffusers ``AutoencoderKL``, or ``AutoencoderDC``, whose latents have no distribution.
        images: what to train on.
        run: the fit this is part of.
        training: hyper-parameters.
        kl_weight: weight of the KL term beside the mean absolute and squared error.
        max_seconds: end after this time.
    """
    order = run.order("autoencoder", len(images), training)

    def load(step: int) -> Tensor:
        return images.gather(run.share(order.at(step)))[0]

    def loss(model: nn.Module, batch: Tensor, noise: torch.Generator) -> Tensor:
        return torch.as_tensor(model(batch.to(run.process.device), noise))

    model = _Loss(vae.to(memory_format=torch.channels_last), kl_weight)
    curve = optimise("autoencoder", model, load, loss, run, training=training, max_seconds=max_seconds)
    vae.eval().requires_grad_(False)
    return curve


class _Loss(nn.Module):
    """|x - x'| + (x - x')^2 + w KL, with x' decoded from a sample of the posterior; errors averaged over values, the KL over images.

    Where an image has one latent and no posterior, that is decoded, and there is no KL.
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
