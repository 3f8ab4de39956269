"""Trains the network of a prior on latents, and prepares a pretrained transformer for other classes.

Legend: N latents, C h w latent axes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.data.transfer import to_device
from d3hr.prior.adapters import add_lora
from d3hr.prior.conditions import Condition
from d3hr.prior.families.denoiser import Denoiser
from d3hr.prior.fit_context import FitContext
from d3hr.prior.latent_cache import Latents
from d3hr.prior.presets import LABEL_DROPOUT, TrainingSettings
from d3hr.prior.schedules.schedule import TrainableSchedule
from d3hr.prior.trainer import Curve

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Linear layers of a transformer block, also of those in a U-Net, that get a low-rank adapter: attention and feed-forward."""


def train_transformer(
    denoiser: Denoiser,
    conditions: Sequence[Condition],
    latents: Latents,
    counts: Sequence[int],
    context: FitContext,
    *,
    schedule: TrainableSchedule,
    settings: TrainingSettings,
    scale: float = 1.0,
    max_seconds: float | None = None,
) -> Curve:
    """Train a network in place: minimise |eps - eps_theta(z_t, t, y)|^2 (DDPM, arXiv 2006.11239, eq. 14), or the error of whatever
    the schedule says that it predicts. Where it also predicts a variance, only the first half of the output is trained: DDIM uses no other.

    Args:
        denoiser: its network is trained; parameters that need no gradient stay as they are.
        conditions: that of each class; a share of the images is given the null condition instead.
        latents: latents [N, C, h, w] class by class.
        counts: number of latents of each class, in the order of ``conditions``.
        scale: factor that brings the latents to unit scale.
        max_seconds: end after this time, or after the steps.

    Returns:
        The loss curve.
    """
    batches, device = context.batches("transformer", sum(counts), settings), context.process.device
    tables = _tables(conditions, device)
    label_at = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))

    def load(step: int) -> tuple[Tensor, Tensor]:
        positions = batches(step)
        return latents.gather(positions) * scale, label_at[positions]

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor], noise: torch.Generator) -> Tensor:
        z, y = (to_device(part, device) for part in batch)
        t, alpha, sigma = schedule.random_times(len(z), noise, z.device)
        eps = torch.randn(z.shape, generator=noise, device=z.device)
        drop = torch.rand(len(z), generator=noise, device=z.device) < LABEL_DROPOUT
        alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
        noisy = alpha * z + sigma * eps
        rows = torch.where(drop, len(counts), y)
        output = denoiser.around(network)(noisy, t, {name: table[rows] for name, table in tables.items()})
        return F.mse_loss(output.float(), schedule.target(z, eps, alpha, sigma))

    # In training mode diffusers' DiT drops labels itself, in each block independently; in evaluation mode only the dropout above is left.
    return context.train("transformer", denoiser.network.eval(), load, loss, settings, max_seconds)


def _tables(conditions: Sequence[Condition], device: torch.device) -> dict[str, Tensor]:
    """Return, for each argument of the network, those of all classes and, last, of the null condition, as rows."""
    first = conditions[0]
    null = first.null or first.inputs
    return {name: torch.stack([*(each.inputs[name] for each in conditions), null[name]]).to(device) for name in first.inputs}


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


def add_adapters(network: Any, rank: int) -> None:
    """Freeze a network but for its label tables, if it has any, and add low-rank adapters, in place."""
    add_lora(network, rank, LORA_TARGETS)
    for name, parameter in network.named_parameters():
        if ".class_embedder." in name:
            parameter.requires_grad_(True)
