"""Fits a pretrained transformer to other classes before it is trained on them: its label table, its low-rank adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from d3hr.errors import SettingsError

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""Linear layers of a DiT block that get a low-rank adapter: attention and feed-forward."""


def replace_classes(transformer: Any, kept: Sequence[int | None]) -> None:
    """Give ``transformer`` a label table for new classes, in place.

    A class that the old table knows keeps its row. The row of a new class starts as the null class, so that the network begins with the
    best it can say of an image whose class it does not know. The null class stays the last row.

    Args:
        transformer: diffusers ``DiTTransformer2DModel``; each of its blocks has a label table of its own.
        kept: for each new class, its row in the old table, or None.
    """
    null = transformer.config.num_embeds_ada_norm
    rows = [null if row is None else row for row in kept] + [null]
    for block in transformer.transformer_blocks:
        embedder = block.norm1.emb.class_embedder
        old = embedder.embedding_table.weight.detach()
        embedder.embedding_table = nn.Embedding.from_pretrained(old[torch.tensor(rows, device=old.device)].clone(), freeze=False)
        embedder.num_classes = len(kept)
    transformer.register_to_config(num_embeds_ada_norm=len(kept))


def add_lora(transformer: Any, rank: int) -> None:
    """Freeze ``transformer`` but for its label tables, and add low-rank adapters (LoRA, arXiv 2106.09685), in place.

    Raises:
        SettingsError: the rank is out of range, or peft is not installed.
    """
    if rank < 1:
        raise SettingsError("--lora_rank must be at least 1.", found=f"{rank}", do="give the rank of the adapters.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SettingsError("--adapt lora needs the package peft.", found=str(error), do="pip install 'd3hr[lora]'.") from error
    transformer.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA_TARGETS)), transformer)
    for block in transformer.transformer_blocks:
        block.norm1.emb.class_embedder.requires_grad_(True)


def merge_lora(transformer: Any) -> None:
    """Fold the adapters of :func:`add_lora` into the weights, in place, so that the network has its former layout again."""
    from peft.tuners.lora import LoraLayer

    for parent in list(transformer.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
