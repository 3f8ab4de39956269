"""Priors that can be planned for without their weights, and without a network, by Hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d3hr.planning.shapes import PriorShape
from d3hr.prior.families.dit import DiT
from d3hr.prior.families.pixel import PixelUNet
from d3hr.prior.families.sit import SiT
from d3hr.prior.families.stable_diffusion import StableDiffusion
from d3hr.prior.families.stable_diffusion_3 import StableDiffusion3
from d3hr.prior.families.stable_diffusion_xl import StableDiffusionXL
from d3hr.prior.imagenet import imagenet_labels
from d3hr.prior.networks import SCHEDULER_CONFIG

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
_SD_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
_FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


def _xl_2(name: str, family: type[DiT], image_size: int, out_channels: int, scheduler: dict[str, Any]) -> PriorShape:
    network = {
        "_class_name": "DiTTransformer2DModel",
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": out_channels,
        "patch_size": 2,
        "sample_size": image_size // 8,
        "num_embeds_ada_norm": 1000,
    }
    return PriorShape(family, network, _AUTOENCODER, scheduler, class_names=tuple(imagenet_labels().values()), name=name)


def _stable_diffusion(name: str, latent_size: int, prediction: str, **text: Any) -> PriorShape:
    network = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": latent_size,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        **text,
    }
    return PriorShape(StableDiffusion, network, _AUTOENCODER, {**_SD_SCHEDULER, "prediction_type": prediction}, name=name)


def _sdxl(name: str) -> PriorShape:
    network = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    return PriorShape(StableDiffusionXL, network, _AUTOENCODER, _SD_SCHEDULER, autoencoder_dtype=torch.float32, name=name)


def _sd3_medium(name: str) -> PriorShape:
    network = {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
    }
    autoencoder = {**_AUTOENCODER, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    return PriorShape(StableDiffusion3, network, autoencoder, {**_FLOW, "shift": 3.0}, name=name)


def _ddpm_cifar10(name: str) -> PriorShape:
    network = {
        "_class_name": "UNet2DModel",
        "sample_size": 32,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "attention_head_dim": None,
        "norm_eps": 1e-6,
    }
    return PriorShape(PixelUNet, network, None, {**SCHEDULER_CONFIG, "clip_sample": True}, name=name)


SHAPES = {
    shape.name: shape
    for shape in (
        _xl_2("facebook/DiT-XL-2-256", DiT, 256, 8, SCHEDULER_CONFIG),
        _xl_2("facebook/DiT-XL-2-512", DiT, 512, 8, SCHEDULER_CONFIG),
        _xl_2("SiT-XL-2-256", SiT, 256, 4, {**_FLOW, "shift": 1.0}),
        _stable_diffusion("stable-diffusion-v1-5/stable-diffusion-v1-5", 64, "epsilon", cross_attention_dim=768, attention_head_dim=8),
        _stable_diffusion(
            "stabilityai/stable-diffusion-2-1",
            96,
            "v_prediction",
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        ),
        _sdxl("stabilityai/stable-diffusion-xl-base-1.0"),
        _sd3_medium("stabilityai/stable-diffusion-3-medium-diffusers"),
        _ddpm_cifar10("google/ddpm-cifar10-32"),
    )
}
"""DiT-XL/2 (arXiv 2212.09748, table 1), SiT-XL/2 (whose weights are a file, so that this is no id), Stable Diffusion 1.5, 2.1 at 768
pixels, XL and 3 medium, and DDPM's CIFAR-10 model."""


def known_shape(prior: str) -> PriorShape | None:
    """Return the shape of a prior that is known by its name; None for another, or where a folder has that name."""
    return None if Path(prior).is_dir() else SHAPES.get(prior)
