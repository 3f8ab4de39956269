"""TAEF2, the tiny autoencoder of the FLUX.2 latents (github.com/madebyollin/taesd, MIT), as an autoencoder that d3hr can load.

It answers what a good pretrained autoencoder is worth: 8 times smaller sides, 32 latent channels. diffusers has no class for it, so it is
registered next to ``AutoencoderTiny`` for the time of a benchmark.
"""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderTiny
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from safetensors.torch import load_file
from torch import Tensor, nn

from d3hr.prior import repository
from d3hr.prior.autoencoder import AUTOENCODERS

WIDTH, GROUPED = 64, 256
"""Channels of the networks, and of the branch that is normalised in groups."""
BLOCKS = 3
"""Blocks at the lowest resolution of either network, which have this branch."""


class AutoencoderTaef2(AutoencoderTiny):  # type: ignore[misc]
    """An ``AutoencoderTiny`` whose blocks at the lowest resolution first add a branch that is normalised over the whole picture."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, latent_channels: int = 32, scaling_factor: float = 1.0) -> None:
        super().__init__(latent_channels=latent_channels, scaling_factor=scaling_factor)
        encoder, decoder = self.encoder.layers, self.decoder.layers
        for layers, blocks in ((encoder, range(len(encoder) - 1 - BLOCKS, len(encoder) - 1)), (decoder, range(2, 2 + BLOCKS))):
            for place in blocks:
                layers[place] = _Block(WIDTH, WIDTH, "relu")


class _Block(AutoencoderTinyBlock):  # type: ignore[misc]
    """Three convolutions and a skip, of the input and its branch."""

    def __init__(self, in_channels: int, out_channels: int, act_fn: str) -> None:
        super().__init__(in_channels, out_channels, act_fn)
        self.pool = nn.Sequential(
            nn.Conv2d(in_channels, GROUPED, 1, bias=False),
            nn.GroupNorm(4, GROUPED),
            nn.ReLU(),
            nn.Conv2d(GROUPED, in_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(super().forward(x + self.pool(x)))


def save_taef2(weights: Path, folder: Path) -> Path:
    """Write the weights of ``taef2.safetensors`` as a folder of an autoencoder, let d3hr load such folders, and return it.

    The file has the names of the original code: ``encoder.N...`` and ``decoder.N...``, where the decoder counts its clamp.
    """
    diffusers.AutoencoderTaef2 = AutoencoderTaef2
    vars(repository)["AUTOENCODERS"] = (*AUTOENCODERS, AutoencoderTaef2.__name__)
    if not folder.is_dir():
        vae = AutoencoderTaef2()
        vae.load_state_dict({_renamed(name): value.float() for name, value in load_file(weights).items()})
        vae.save_pretrained(folder, safe_serialization=True)
    return folder


def _renamed(name: str) -> str:
    part, place, rest = name.split(".", 2)
    return f"{part}.layers.{int(place) - (part == 'decoder')}.{rest}"
