"""Trains a class-conditional diffusion transformer on latents, and prepares a pretrained one for other classes.

Legend: N latents, C h w latent axes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.prior.adapters import add_lora
from d3hr.prior.fit_context import FitContext
from d3hr.prior.latent_cache import Latents
from d3hr.prior.presets import LABEL_DROPOUT, TrainingSettings
from d3hr.prior.schedules.schedule import TrainableSchedule
from d3hr.prior.trainer import Curve

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Linear layers of a DiT block that get a low-rank adapter: attention and feed-forward."""


def train_transformer(
    transformer: Any,
    latents: Latents,
    counts: Sequence[int],
    context: FitContext,
    *,
    schedule: TrainableSchedule,
    settings: TrainingSettings,
    scale: float = 1.0,
    max_seconds: float | None = None,
) -> Curve:
    """Train ``transformer`` in place: minimise |eps - eps_theta(z_t, t, y)|^2 (DDPM, arXiv 2006.11239, eq. 14), or the error of whatever
    the schedule says that it predicts. Where it also predicts a variance, only the first half of the output is trained: DDIM uses no other.

    Args:
        transformer: diffusers ``DiTTransformer2DModel``; parameters that need no gradient stay as they are.
        latents: latents [N, C, h, w] class by class.
        counts: number of latents of each class, in the order of the label table.
        scale: factor that brings the latents to unit scale.
        max_seconds: end after this time, or after the steps.

    Returns:
        The loss curve.
    """
    batches, device = context.batches("transformer", sum(counts), settings), context.process.device
    label_at = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))

    def load(step: int) -> tuple[Tensor, Tensor]:
        positions = batches(step)
        return latents.gather(positions) * scale, label_at[positions]

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor], noise: torch.Generator) -> Tensor:
        z, y = (part.to(device) for part in batch)
        t, alpha, sigma = schedule.random_times(len(z), noise, z.device)
        eps = torch.randn(z.shape, generator=noise, device=z.device)
        drop = torch.rand(len(z), generator=noise, device=z.device) < LABEL_DROPOUT
        alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
        noisy = alpha * z + sigma * eps
        output = network(noisy, timestep=t, class_labels=torch.where(drop, len(counts), y), return_dict=False)[0]
        return F.mse_loss(output[:, : z.shape[1]].float(), schedule.target(z, eps, alpha, sigma))

    # In training mode diffusers' DiT drops labels itself, in each block independently; in evaluation mode only the dropout above is left.
    return context.train("transformer", transformer.eval(), load, loss, settings, max_seconds)


def replace_classes(transformer: Any, old_rows: Sequence[int | None]) -> None:
    """Give ``transformer`` a label table for other classes, in place.

    A class that the old table has keeps its row. The row of a new class starts as the null class, so that the network begins with its
    prediction for an image of unknown class. The null class stays the last row. Each block of the transformer has a label table of its own.
    ``old_rows`` is, for each new class, its row in the old table, or None.
    """
    null = transformer.config.num_embeds_ada_norm
    rows = [null if row is None else row for row in old_rows] + [null]
    for block in transformer.transformer_blocks:
        embedder = block.norm1.emb.class_embedder
        old = embedder.embedding_table.weight.detach()
        embedder.embedding_table = nn.Embedding.from_pretrained(old[torch.tensor(rows, device=old.device)].clone(), freeze=False)
        embedder.num_classes = len(old_rows)
    transformer.register_to_config(num_embeds_ada_norm=len(old_rows))


def add_adapters(transformer: Any, rank: int) -> None:
    """Freeze ``transformer`` but for its label tables, and add low-rank adapters, in place."""
    add_lora(transformer, rank, LORA_TARGETS)
    for block in transformer.transformer_blocks:
        block.norm1.emb.class_embedder.requires_grad_(True)
