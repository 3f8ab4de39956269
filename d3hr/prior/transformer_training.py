"""Trains a class-conditional diffusion transformer on latents.

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.prior.latents import Latents
from d3hr.prior.optimization import Curve, Run, optimise
from d3hr.prior.presets import Training
from d3hr.prior.schedule import Schedule


def train_transformer(
    transformer: Any,
    latents: Latents,
    counts: Sequence[int],
    run: Run,
    *,
    schedule: Schedule,
    training: Training,
    label_dropout: float,
    scale: float = 1.0,
    max_seconds: float | None = None,
) -> Curve:
    """Train ``transformer`` in place: minimise |eps - eps_theta(z_t, t, y)|^2 (DDPM, arXiv 2006.11239, eq. 14), or the same for what the
    schedule says it predicts. Of a transformer with learned variance only the first half of the output is trained: DDIM uses no other.

    Args:
        transformer: diffusers ``DiTTransformer2DModel``; parameters that need no gradient stay as they are.
        latents: latents [N, C, h, w] class by class.
        counts: how many of them each class has, in the order of the label table.
        run: the fit this is part of.
        schedule: the noise schedule.
        training: hyper-parameters.
        label_dropout: share of latents whose class is replaced by the null class.
        scale: brings the latents to unit scale.
        max_seconds: end after this time.
    """
    order = run.order("transformer", sum(counts), training)
    label_at = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    signal = schedule.alphas_cumprod.float().to(run.process.device)

    def load(step: int) -> tuple[Tensor, Tensor]:
        positions = run.share(order.at(step))
        return latents.gather(positions) * scale, label_at[positions]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], noise: torch.Generator) -> Tensor:
        z, y = (part.to(run.process.device) for part in batch)
        t = torch.randint(len(signal), (len(z),), generator=noise, device=z.device)
        eps = torch.randn(z.shape, generator=noise, device=z.device)
        drop = torch.rand(len(z), generator=noise, device=z.device) < label_dropout
        alpha = signal[t].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * z + (1 - alpha).sqrt() * eps
        output = model(noisy, timestep=t, class_labels=torch.where(drop, len(counts), y), return_dict=False)[0]
        return F.mse_loss(output[:, : z.shape[1]].float(), schedule.target(z, eps, alpha))

    # diffusers' DiT drops labels by itself in training mode, in every block apart from the others: evaluation mode leaves it to us.
    return optimise("transformer", transformer.eval(), load, loss, run, training=training, max_seconds=max_seconds)
