"""The family of SDXL (arXiv 2307.01952).

Legend: N images, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from d3hr.prior.conditions import Condition, Inputs
from d3hr.prior.families.stable_diffusion import StableDiffusion
from d3hr.prior.repository import Repository, autoencoder_config

_TIME_IDS = 6
"""Numbers that say of which size and cut an image is."""


class StableDiffusionXL(StableDiffusion):
    """A U-Net that is given two text encoders' embeddings, and that an image of its own size was not cropped."""

    pipelines = ("StableDiffusionXLPipeline",)
    embeddings = ("encoder_hidden_states", "text_embeds")
    extra_embedding = "text_time"

    @classmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load the U-Net of a pipeline; one with an autoencoder whose latents are standardised per channel is a ``PriorError``."""
        if autoencoder_config(repository).get("latents_mean"):
            raise repository.unusable("its autoencoder has a latents_mean; d3hr can use a scaling_factor alone")
        return super().load(repository, dtype)

    @classmethod
    def load_autoencoder(cls, repository: Repository, dtype: torch.dtype) -> Any:
        """Load the autoencoder in float32: SDXL's gives NaN for images in float16.

        One whose configuration says ``"force_upcast": false`` is in the network's precision.
        """
        safe = autoencoder_config(repository).get("force_upcast") is False
        return super().load_autoencoder(repository, dtype if safe else torch.float32)

    def require_autoencoder(self, vae: Any) -> None:
        """Refuse an autoencoder whose latents the network does not take; say so where it is in another precision."""
        super().require_autoencoder(vae)
        if vae.dtype != self.weight.dtype:
            self.notes = ("its autoencoder is used in fp32, since SDXL's gives NaN for images in fp16",)

    def text_pipeline(self, parts: Mapping[str, Any]) -> Any:
        """Return a ``StableDiffusionXLPipeline``."""
        from diffusers import StableDiffusionXLPipeline

        zeros = bool(self.encoders.index.get("force_zeros_for_empty_prompt", True))
        return StableDiffusionXLPipeline(**_absent(parts), **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)

    @property
    def constants(self) -> dict[str, Tensor]:
        """Original size, crop and size, all of an image of the network's side that was not cropped."""
        side = self.latent_shape[1] * 2 ** (len(autoencoder_config(self.repository)["block_out_channels"]) - 1)
        return {"time_ids": torch.tensor([side, side, 0, 0, side, side], dtype=self.weight.dtype)}

    @property
    def example(self) -> Condition:
        """A condition of zeros, as long as CLIP's."""
        config = self.network.config
        pooled = config.projection_class_embeddings_input_dim - _TIME_IDS * config.addition_time_embed_dim
        return self._example(encoder_hidden_states=(77, config.cross_attention_dim), text_embeds=(pooled,))

    def __call__(self, z: Tensor, t: Tensor, inputs: Inputs) -> Tensor:
        """Return the prediction [N, C, h, w]."""
        added = {name: inputs[name] for name in ("text_embeds", "time_ids")}
        text = inputs["encoder_hidden_states"]
        output: Tensor = self.network(z, t, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[0]
        return output


def _absent(parts: Mapping[str, Any]) -> dict[str, Any]:
    names = ("vae", "unet", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return {name: None for name in names if name not in parts}
