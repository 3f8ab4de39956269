"""Untrained networks of a preset, for an image size and a number of classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from d3hr.errors import SettingsError
from d3hr.execution.worker import device_here
from d3hr.prior.presets import PriorPreset
from d3hr.prior.settings import Objective

SCHEDULER_CONFIG = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
}
"""The noise schedule of DiT (arXiv 2212.09748), as a diffusers scheduler configuration."""
SCHEDULER_CONFIGS: dict[Objective, dict[str, Any]] = {
    "epsilon": SCHEDULER_CONFIG,
    "v": {**SCHEDULER_CONFIG, "prediction_type": "v_prediction"},
    "flow": {
        "_class_name": "DPMSolverMultistepScheduler",
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
}
"""The scheduler configuration of a new prior, by what it learns. ``DiTPipeline`` calls ``scale_model_input``, which diffusers'
``FlowMatchEulerDiscreteScheduler`` lacks. With a shift of 3 the levels of a flow have about the share of noise that those of DiT's schedule
have: at levels 5, 25 and 31 of 50, sigma / alpha is 0.34, 3.1 and 5.2, there 0.34, 3.4 and 7.0; presets mean the same with both."""


def _halvings(preset: PriorPreset, image_size: int) -> int:
    """Return how often the autoencoder halves an image of ``image_size`` pixels, which must be possible without a remainder."""
    halvings = 1
    while image_size // 2**halvings > preset.latent_size:
        halvings += 1
    if image_size % 2**halvings:
        raise SettingsError(
            "The image size cannot be halved often enough.",
            found=f"{image_size} pixels, {halvings} halvings",
            hint=f"use a multiple of {2**halvings}.",
        )
    return halvings


def new_autoencoder(preset: PriorPreset, image_size: int) -> Any:
    """Return an untrained diffusers autoencoder, of the class that the preset names, for RGB images of ``image_size`` pixels a side."""
    from diffusers import AutoencoderKL

    levels = _halvings(preset, image_size) + 1
    if preset.autoencoder == "AutoencoderDC":
        return _folding_autoencoder(preset, levels)
    widths = preset.autoencoder_widths
    # Full resolution is the costly part: deeper pyramids start at half the width.
    widths = _of_length((widths[0] // 2, *widths) if levels > len(widths) else widths, levels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=widths,
        layers_per_block=preset.autoencoder_layers,
        latent_channels=preset.latent_channels,
        norm_num_groups=8,
        sample_size=image_size,
        mid_block_add_attention=False,
    )


def _folding_autoencoder(preset: PriorPreset, levels: int) -> Any:
    """Return an ``AutoencoderDC`` without attention, whose first and last step, between pixels and half resolution, have no blocks."""
    from diffusers import AutoencoderDC

    below = _of_length(preset.autoencoder_widths, levels - 1)
    # The first level is that of the pixels: it has no blocks, and the channels of the next.
    widths, layers = (below[0], *below), (0, *[1] * (levels - 2), preset.autoencoder_layers)
    return AutoencoderDC(
        latent_channels=preset.latent_channels,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=((),) * levels,
        decoder_qkv_multiscales=((),) * levels,
    )


def _of_length(widths: tuple[int, ...], levels: int) -> tuple[int, ...]:
    """Return the widths of ``levels`` levels; the last one given is repeated where more are needed."""
    return (*widths[:levels], *widths[-1:] * (levels - len(widths)))


def new_transformer(preset: PriorPreset, latent_shape: tuple[int, int], num_classes: int) -> Any:
    """Return an untrained diffusers ``DiTTransformer2DModel`` with one null class, initialised as DiT prescribes.

    diffusers keeps PyTorch's defaults; DiT (arXiv 2212.09748, section 3.2) starts every block as the identity: Xavier-uniform linear
    layers, N(0, 0.02) embeddings, zero modulation and zero output. ``latent_shape`` is (channels, side); ``num_classes`` excludes the null
    class.
    """
    from diffusers import DiTTransformer2DModel

    channels, latent_size = latent_shape
    patch_size = 1
    while (latent_size // patch_size) ** 2 > preset.tokens:
        patch_size *= 2
    transformer = DiTTransformer2DModel(
        num_attention_heads=preset.heads,
        attention_head_dim=preset.width // preset.heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=preset.layers,
        sample_size=latent_size,
        patch_size=patch_size,
        num_embeds_ada_norm=num_classes,
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    patches = transformer.pos_embed.proj
    nn.init.xavier_uniform_(patches.weight.view(patches.weight.shape[0], -1))
    nn.init.zeros_(patches.bias)
    for block in transformer.transformer_blocks:
        nn.init.normal_(block.norm1.emb.class_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(block.norm1.emb.timestep_embedder.linear_1.weight, std=0.02)
        nn.init.normal_(block.norm1.emb.timestep_embedder.linear_2.weight, std=0.02)
        nn.init.zeros_(block.norm1.linear.weight)
    for layer in (transformer.proj_out_1, transformer.proj_out_2):
        nn.init.zeros_(layer.weight)
    return transformer


_CHOSEN: ContextVar[torch.device | None] = ContextVar("device", default=None)


@contextmanager
def on_device(name: str | None) -> Iterator[None]:
    """Let everything inside the context compute on a device, such as ``cuda:1``, unless it is given one of its own; None changes nothing.

    Raises:
        SettingsError: there is no such device.
    """
    if name is None:
        yield
        return
    token = _CHOSEN.set(device_here(name))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def default_device() -> torch.device:
    """Return the device of :func:`on_device`; by default the fastest."""
    return _CHOSEN.get() or fastest_device()


def fastest_device() -> torch.device:
    """Return CUDA or MPS where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
