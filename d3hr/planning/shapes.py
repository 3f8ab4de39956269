"""The shape of a prior: its networks as configurations, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from d3hr.prior.families.dit import DiT
from d3hr.prior.model import Prior
from d3hr.prior.networks import SCHEDULER_CONFIG, default_device
from d3hr.seeds import seeded


@dataclass(frozen=True)
class PriorShape:
    """Everything that decides what a prior costs, and nothing of what it has learnt.

    Attributes:
        transformer: configuration of a diffusers ``DiTTransformer2DModel``.
        autoencoder: configuration of a diffusers autoencoder, its class under ``_class_name`` (by default ``AutoencoderKL``).
        image_size: side H = W of the images, in pixels.
    """

    transformer: Mapping[str, Any]
    autoencoder: Mapping[str, Any]
    image_size: int
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, prior: Prior) -> PriorShape:
        """Return the shape of a prior."""
        autoencoder = {**prior.vae.config, "_class_name": type(prior.vae).__name__}
        return cls(dict(prior.network.config), autoencoder, prior.image_size, prior.network.dtype)

    @property
    def layers(self) -> int:
        """Transformer blocks."""
        return int(self.transformer["num_layers"])

    @property
    def classes(self) -> int:
        """Classes that the prior knows."""
        return int(self.transformer["num_embeds_ada_norm"])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""
        side = int(self.transformer["sample_size"])
        return int(self.transformer["in_channels"]), side, side

    @property
    def dimensions(self) -> int:
        """Values D = C h w of one latent."""
        return torch.Size(self.latent_shape).numel()

    def with_layers(self, layers: int) -> PriorShape:
        """Return the same shape with another number of transformer blocks."""
        return replace(self, transformer={**self.transformer, "num_layers": layers})

    def networks(self, device: str | torch.device) -> tuple[Any, Any]:
        """Return an untrained transformer and autoencoder on ``device``; on ``meta`` they take no memory."""
        import diffusers

        autoencoder_class = getattr(diffusers, self.autoencoder.get("_class_name", "AutoencoderKL"))
        with seeded(0, torch.device(device)), torch.device(device):
            transformer = diffusers.DiTTransformer2DModel.from_config(dict(self.transformer))
            autoencoder = autoencoder_class.from_config(dict(self.autoencoder))
        # The networks' own `to` warns about parts that should stay in float32, naming none.
        return nn.Module.to(transformer, self.dtype), nn.Module.to(autoencoder, self.dtype)

    def untrained(self) -> Prior:
        """Return a prior of this shape with random weights, its classes called by their numbers."""
        transformer, autoencoder = self.networks(default_device())
        return Prior(DiT(transformer, [str(index) for index in range(self.classes)]), autoencoder, SCHEDULER_CONFIG)


_AUTOENCODER: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "mid_block_add_attention": True,
}
"""The autoencoder of Stable Diffusion 1 (arXiv 2112.10752): 8 x 8 pixels to one latent position."""


def _dit_xl_2(image_size: int) -> PriorShape:
    transformer = {
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "patch_size": 2,
        "sample_size": image_size // 8,
        "num_embeds_ada_norm": 1000,
    }
    return PriorShape(transformer, _AUTOENCODER, image_size)


SHAPES: dict[str, PriorShape] = {f"facebook/DiT-XL-2-{image_size}": _dit_xl_2(image_size) for image_size in (256, 512)}
"""Priors that can be planned for without their weights, by Hub id: DiT-XL/2 (arXiv 2212.09748, table 1)."""
