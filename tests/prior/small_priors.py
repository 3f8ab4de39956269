"""Small priors of every family for tests/prior/test_families.py: pictures of 8 pixels, random weights, files as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file

from d3hr import Prior
from d3hr.prior.families.denoiser import Denoiser
from d3hr.prior.families.dit import DiT
from d3hr.prior.families.pixel import PixelUNet
from d3hr.prior.families.sit import SiT
from d3hr.prior.families.stable_diffusion import StableDiffusion
from d3hr.prior.families.stable_diffusion_3 import StableDiffusion3
from d3hr.prior.families.stable_diffusion_xl import StableDiffusionXL
from tests.conftest import untrained_prior
from tests.prior.sit_reference import random_checkpoint
from tests.prior.text_models import opened, stable_diffusion, stable_diffusion_3, stable_diffusion_xl, vae

CLASSES = ("ant", "bee", "cow")
"""Classes that each of them can draw."""


@dataclass(frozen=True)
class SmallPrior:
    """A prior for tests."""

    name: str
    family: type[Denoiser]
    write: Callable[[Path], Prior]
    """Writes its files into an empty folder, in the layout of the family, and opens them."""
    draw: Callable[[str], np.ndarray] | None
    """Draws an image [1, H, W, C] in [0, 1] by diffusers' own pipeline, of two steps, from a folder; None where diffusers has none."""
    conditional: bool = True
    """Whether its network is given anything of a class."""
    guided: bool = True
    """Whether it knows a null condition."""
    pixels: bool = False
    """Whether it diffuses pixels."""
    other_schedule: dict[str, Any] = field(default_factory=lambda: {"beta_end": 0.03})
    """A change of the scheduler's configuration."""


def saved_dit(folder: Path) -> Prior:
    untrained_prior(CLASSES).save_pretrained(folder / "dit")
    return Prior.from_pretrained(folder / "dit")


def draw_dit(folder: str) -> np.ndarray:
    pipeline = diffusers.DiTPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        images: np.ndarray = pipeline([1], num_inference_steps=2, guidance_scale=1.0, output_type="np").images
    return images


def sit_copy(folder: Path, weights: dict[str, torch.Tensor] | None = None, *, heads: int = 6) -> Path:
    """Write a SiT in the layout of diffusers, with SiT's names, as BiliSakura/SiT-diffusers has them; its classes are without names."""
    weights = weights or random_checkpoint(classes=len(CLASSES))
    vae().save_pretrained(folder / "vae")
    (folder / "transformer").mkdir()
    (folder / "scheduler").mkdir()
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "SiTTransformer2DModel", "input_size": 4, "num_heads": heads, "num_classes": len(CLASSES), "norm_type": "ln"}
    schedule = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
    index = {"_class_name": ["pipeline", "SiTPipeline"], "transformer": ["transformer_sit", "SiTTransformer2DModel"]}
    for file, content in (("transformer/config", config), ("scheduler/scheduler_config", schedule), ("model_index", index)):
        (folder / f"{file}.json").write_text(json.dumps(content))
    return folder


def named_sit(folder: Path) -> Prior:
    """A checkpoint in one file, whose weights are so small that its velocity changes smoothly, saved under names of classes."""
    weights = random_checkpoint(classes=len(CLASSES))
    torch.save({name: value if name == "pos_embed" else 0.5 * value for name, value in weights.items()}, folder / "sit.pt")
    vae().save_pretrained(folder / "vae")
    unnamed = Prior.from_pretrained(folder / "sit.pt", autoencoder=folder / "vae")
    Prior(SiT(unnamed.network, CLASSES), unnamed.vae, unnamed.scheduler_config).save_pretrained(folder / "sit")
    return Prior.from_pretrained(folder / "sit")


def unet(*, rows: int | None = None, channels: int = 3, **changes: Any) -> Any:
    """A U-Net of 8 pixels and random weights, so small that its slope changes smoothly."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            **{
                "sample_size": 8,
                "in_channels": channels,
                "out_channels": channels,
                "block_out_channels": (8,),
                "down_block_types": ("DownBlock2D",),
                "up_block_types": ("UpBlock2D",),
                "layers_per_block": 1,
                "norm_num_groups": 4,
                "attention_head_dim": 8,
                "num_class_embeds": rows,
                **changes,
            }
        )
        with torch.no_grad():
            network.conv_out.weight *= 0.2
    return network


def pixel_pipeline(folder: Path, network: Any, names: tuple[str, ...] = (), **scheduler: Any) -> Path:
    """Save a ``DDPMPipeline`` by diffusers; names of classes are added to its index, where diffusers has no place for them."""
    diffusers.DDPMPipeline(network, diffusers.DDPMScheduler(**scheduler)).save_pretrained(folder)
    if names:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, "id2label": {str(row): name for row, name in enumerate(names)}}))
    return folder


def draw_pixels(folder: str) -> np.ndarray:
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    images: np.ndarray = pipeline(generator=torch.Generator().manual_seed(1), num_inference_steps=2, output_type="np").images
    return images


def draw_text(folder: str) -> np.ndarray:
    images: np.ndarray = opened(Path(folder))(
        "a photo of a bee", num_inference_steps=2, height=8, width=8, generator=torch.Generator().manual_seed(1), output_type="np"
    ).images
    return images


SMALL_PRIORS = (
    SmallPrior("dit", DiT, saved_dit, draw_dit),
    SmallPrior("sit", SiT, named_sit, None, other_schedule={"shift": 3.0}),
    SmallPrior("stable-diffusion", StableDiffusion, lambda folder: Prior.from_pretrained(stable_diffusion(folder / "sd")), draw_text),
    SmallPrior("sdxl", StableDiffusionXL, lambda folder: Prior.from_pretrained(stable_diffusion_xl(folder / "xl")), draw_text),
    SmallPrior(
        "stable-diffusion-3",
        StableDiffusion3,
        lambda folder: Prior.from_pretrained(stable_diffusion_3(folder / "sd3")),
        draw_text,
        other_schedule={"shift": 2.0},
    ),
    SmallPrior(
        "pixels",
        PixelUNet,
        lambda folder: Prior.from_pretrained(pixel_pipeline(folder / "ddpm", unet())),
        draw_pixels,
        conditional=False,
        guided=False,
        pixels=True,
    ),
    SmallPrior(
        "pixels-by-class",
        PixelUNet,
        lambda folder: Prior.from_pretrained(pixel_pipeline(folder / "ddpm", unet(rows=3), CLASSES)),
        None,
        guided=False,
        pixels=True,
    ),
    SmallPrior(
        "grey-pixels-guided",
        PixelUNet,
        lambda folder: Prior.from_pretrained(pixel_pipeline(folder / "ddpm", unet(rows=4, channels=1), CLASSES, clip_sample=False)),
        None,
        pixels=True,
    ),
)
