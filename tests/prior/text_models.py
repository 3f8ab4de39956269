"""Small text-to-image pipelines of random weights, saved by diffusers in the layouts of public ones."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

LENGTH = 16
"""Tokens of a prompt."""
SCHEDULER = {  # the file of Stable Diffusion 1.5
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None, "clip_sample": False,
}  # fmt: skip


def tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer whose tokens are letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.-"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)


def text_encoder(width: int = 32, *, projected: bool = False) -> Any:
    """A CLIP text encoder of two layers."""
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    config = transformers.CLIPTextConfig(
        vocab_size=80, hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=LENGTH,
        projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return randomised(kind(config))


def unet(**changes: Any) -> Any:
    """A U-Net for latents [4, 4, 4] and prompts of width 32."""
    config: dict[str, Any] = {
        "sample_size": 4, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 2,
        "norm_num_groups": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return randomised(diffusers.UNet2DConditionModel(**{**config, **changes}))


def vae(channels: int = 4, **changes: Any) -> Any:
    """An autoencoder of images [3, 8, 8] and latents [channels, 4, 4]."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8),
            latent_channels=channels, norm_num_groups=8, sample_size=8, **{"scaling_factor": 0.18215, **changes},
        )  # fmt: skip


def randomised(network: Any) -> Any:
    """Draw all weights anew, so that each matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def stable_diffusion(folder: Path, *, network: Any = None, scheduler: dict[str, Any] = SCHEDULER) -> Path:
    """Save a ``StableDiffusionPipeline``."""
    kind = getattr(diffusers, scheduler["_class_name"])
    diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=tokenizer(folder.with_name("tokenizer")), unet=network or unet(),
        scheduler=kind.from_config(scheduler), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def opened(folder: Path) -> Any:
    """Open a pipeline with diffusers' own class."""
    absent = [part for part, kind in json.loads((folder / "model_index.json").read_text()).items() if kind == [None, None]]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **dict.fromkeys(absent))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stable_diffusion_xl(folder: Path, *, zeros: bool = True) -> Path:
    """Save a ``StableDiffusionXLPipeline``: two text encoders, of width 16 each, and six numbers of 8 for size and crop."""
    words = tokenizer(folder.with_name("tokenizer"))
    network = unet(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8)
    diffusers.StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025), text_encoder=text_encoder(16), tokenizer=words, text_encoder_2=text_encoder(16, projected=True),
        tokenizer_2=words, unet=network,
        scheduler=diffusers.EulerDiscreteScheduler.from_config({**SCHEDULER, "timestep_spacing": "leading"}),
        force_zeros_for_empty_prompt=zeros, add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def t5() -> tuple[Any, Any]:
    """A T5 encoder of one layer and width 32, and its tokenizer of letters, which older transformers cannot make from a list."""
    pytest.importorskip("transformers", minversion="5")
    letters = [(letter, -2.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = transformers.T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -1.0), *letters], extra_ids=0)
    config = transformers.T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1)
    return randomised(transformers.T5EncoderModel(config)), words


def stable_diffusion_3(folder: Path, *, third: tuple[Any, Any] = (None, None), **changes: Any) -> Path:
    """Save a ``StableDiffusion3Pipeline``, by default without T5: a transformer over latents [8, 4, 4], with a schedule shifted by 3."""
    config: dict[str, Any] = {
        "sample_size": 4, "patch_size": 2, "in_channels": 8, "out_channels": 8, "num_layers": 1, "attention_head_dim": 8,
        "num_attention_heads": 2, "joint_attention_dim": 32, "caption_projection_dim": 16, "pooled_projection_dim": 32,
        "pos_embed_max_size": 4,
    }  # fmt: skip
    words = tokenizer(folder.with_name("tokenizer"))
    diffusers.StableDiffusion3Pipeline(
        transformer=randomised(diffusers.SD3Transformer2DModel(**{**config, **changes})), vae=vae(8, scaling_factor=1.5, shift_factor=0.06),
        text_encoder=text_encoder(16, projected=True), tokenizer=words, text_encoder_2=text_encoder(16, projected=True), tokenizer_2=words,
        text_encoder_3=third[0], tokenizer_3=third[1], scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder)  # fmt: skip
    return folder
