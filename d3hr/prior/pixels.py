"""What takes the place of an autoencoder in a prior that diffuses pixels themselves.

Legend: N images, H = W image side, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Decoded(NamedTuple):
    """What a decoder returns, under diffusers' name."""

    sample: Tensor


class Pixels(nn.Module):
    """Latents that are images, float32 whatever the network computes in.

    Args:
        channels: 3, or 1 for the mean of the three colours, from which a grey image is decoded.
    """

    def __init__(self, channels: int) -> None:
        from diffusers.configuration_utils import FrozenDict

        super().__init__()
        self.config = FrozenDict(latent_channels=channels, block_out_channels=(channels,), scaling_factor=1.0)
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.get_buffer("_place").device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of what goes in and comes out."""
        return torch.float32

    def encode(self, images: Tensor) -> tuple[Tensor]:
        """Return, as the only item, images [N, 3, H, W] as the network takes them [N, C, H, W]."""
        return (images if self.config.latent_channels == 3 else images.mean(dim=1, keepdim=True),)

    def decode(self, latents: Tensor) -> Decoded:
        """Return images [N, 3, H, W] of latents [N, C, H, W]."""
        return Decoded(latents.expand(-1, 3, -1, -1))
