"""The family of Stable Diffusion 3 (arXiv 2403.03206): flow-matching transformers that are given text.

Legend: N images, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from d3hr.prior.conditions import Condition, Inputs
from d3hr.prior.families.text import TextDenoiser
from d3hr.prior.repository import Repository


class StableDiffusion3(TextDenoiser):
    """A transformer over patches and tokens of text. A copy may lack its third text encoder, T5, whose tokens are zeros then."""

    pipelines = ("StableDiffusion3Pipeline",)
    part = "transformer"
    embeddings = ("encoder_hidden_states", "pooled_projections")
    optional_encoders = ("text_encoder_3",)
    further_prompts = ("prompt_2", "prompt_3")

    @staticmethod
    def network_class() -> Any:
        """Return ``SD3Transformer2DModel``."""
        from diffusers import SD3Transformer2DModel

        return SD3Transformer2DModel

    @classmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load the transformer of a pipeline; a side that its patches do not fill is a ``PriorError``."""
        config = repository.json("transformer/config.json")
        side, patch, most = (config.get(name) for name in ("sample_size", "patch_size", "pos_embed_max_size"))
        if isinstance(side, int) and isinstance(patch, int) and (side % patch or side // patch > int(most or side)):
            raise repository.unusable(f"transformer: latents of side {side} are not 1 to {most} patches of side {patch}")
        return super().load(repository, dtype)

    def text_pipeline(self, parts: Mapping[str, Any]) -> Any:
        """Return a ``StableDiffusion3Pipeline``; of the transformer it uses no weight."""
        from diffusers import StableDiffusion3Pipeline

        names = ("vae", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
        absent: dict[str, Any] = {name: None for name in names if name not in parts}
        return StableDiffusion3Pipeline(transformer=self.network, **absent, **parts)

    @property
    def example(self) -> Condition:
        """A condition of zeros, as long as CLIP's and T5's tokens."""
        config = self.network.config
        return self._example(
            encoder_hidden_states=(77 + 256, config.joint_attention_dim), pooled_projections=(config.pooled_projection_dim,)
        )

    def __call__(self, z: Tensor, t: Tensor, inputs: Inputs) -> Tensor:
        """Return the velocity [N, C, h, w]."""
        output: Tensor = self.network(z, timestep=t, **inputs, return_dict=False)[0]
        return output
