"""The family of Stable Diffusion 1 and 2 (arXiv 2112.10752) and of models of their layout, such as BK-SDM.

Legend: N images, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from d3hr.prior.conditions import Condition, Inputs
from d3hr.prior.families.text import TextDenoiser
from d3hr.prior.repository import Repository


class StableDiffusion(TextDenoiser):
    """A U-Net that attends to the embedding of a prompt."""

    pipelines = ("StableDiffusionPipeline",)
    part = "unet"
    embeddings: ClassVar[tuple[str, ...]] = ("encoder_hidden_states",)
    extra_embedding: str | None = None
    """The ``addition_embed_type`` of the network."""

    @staticmethod
    def network_class() -> Any:
        """Return ``UNet2DConditionModel``."""
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel

    @classmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load the U-Net of a pipeline; one that needs more than the prompt is a ``PriorError``."""
        config = repository.json("unet/config.json")
        needed = {"addition_embed_type": cls.extra_embedding, "class_embed_type": None, "encoder_hid_dim_type": None}
        if odd := [name for name, usual in needed.items() if config.get(name) != usual]:
            raise repository.unusable(f"unet: its {odd[0]} is {config.get(odd[0])}, where d3hr can use {needed[odd[0]]}")
        if config.get("in_channels") != config.get("out_channels"):
            raise repository.unusable(f"unet: {config.get('in_channels')} input and {config.get('out_channels')} output channels")
        return super().load(repository, dtype)

    def text_pipeline(self, parts: Mapping[str, Any]) -> Any:
        """Return a ``StableDiffusionPipeline``."""
        from diffusers import StableDiffusionPipeline

        absent: dict[str, Any] = dict.fromkeys(("vae", "unet", "scheduler", "safety_checker", "feature_extractor"))
        return StableDiffusionPipeline(**absent, **parts, requires_safety_checker=False)

    @property
    def example(self) -> Condition:
        """A condition of zeros, as long as CLIP's."""
        return self._example(encoder_hidden_states=(77, self.network.config.cross_attention_dim))

    def __call__(self, z: Tensor, t: Tensor, inputs: Inputs) -> Tensor:
        """Return the prediction [N, C, h, w]."""
        output: Tensor = self.network(z, t, **inputs, return_dict=False)[0]
        return output
