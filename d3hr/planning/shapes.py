"""The shape of a prior of any family: its networks as configurations, without weights.

Legend: N images, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from d3hr.prior.autoencoder import downsampling
from d3hr.prior.conditions import Condition
from d3hr.prior.families.denoiser import SCHEDULER_FILE, Denoiser
from d3hr.prior.families.text import TextDenoiser
from d3hr.prior.model import Prior
from d3hr.prior.networks import default_device
from d3hr.prior.pixels import Pixels
from d3hr.prior.repository import Repository
from d3hr.seeds import seeded


class Configurations(Repository):
    """A repository of which only configurations are known: file -> what is in it."""

    def __init__(self, name: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        self.name, self.is_file, self.folder, self._files = name, False, Path(name), files

    def json(self, path: str) -> dict[str, Any]:
        """Return a configuration, as :class:`~d3hr.prior.repository.Repository` does."""
        return dict(self._files[str(PurePosixPath(path))])


@dataclass(frozen=True)
class PriorShape:
    """Everything that decides what a prior costs, and nothing of what it has learnt.

    Attributes:
        family: the family.
        network: configuration of the network, its diffusers class under ``_class_name``.
        autoencoder: configuration of a diffusers autoencoder, its class under ``_class_name``; none for a prior on pixels.
        scheduler: configuration of the scheduler.
        dtype: precision of the network.
        autoencoder_dtype: that of the autoencoder, if it is another.
        class_names: name of each row of the label table, where it has one; by default their numbers.
        name: Hub id, if it has one.
    """

    family: type[Denoiser]
    network: Mapping[str, Any]
    autoencoder: Mapping[str, Any] | None
    scheduler: Mapping[str, Any]
    dtype: torch.dtype = torch.float32
    autoencoder_dtype: torch.dtype | None = None
    class_names: tuple[str, ...] = ()
    name: str = ""

    @classmethod
    def of(cls, prior: Prior) -> PriorShape:
        """Return the shape of a prior."""
        pixels = isinstance(prior.vae, Pixels)
        return cls(
            type(prior.denoiser),
            {**prior.network.config, "_class_name": type(prior.network).__name__},
            None if pixels else {**prior.vae.config, "_class_name": type(prior.vae).__name__},
            prior.scheduler_config,
            prior.network.dtype,
            None if pixels else prior.vae.dtype,
            prior.class_names,
        )

    @property
    def repository(self) -> Configurations:
        """The configurations as files of a pipeline."""
        part = getattr(self.family, "part", "unet" if self.autoencoder is None else "transformer")
        index = {"_class_name": self.family.pipelines[0], "id2label": dict(enumerate(self.class_names))}
        files = {"model_index.json": index, f"{part}/config.json": self.network, SCHEDULER_FILE: self.scheduler}
        # A folder that is not there has no part, so that its autoencoder is looked for at the top.
        return Configurations(self.name, files | dict.fromkeys(("vae/config.json", "config.json"), self.autoencoder or self.network))

    @property
    def layers(self) -> int | None:
        """Transformer blocks; None for a U-Net, whose blocks differ."""
        return self.network.get("num_layers")

    @cached_property
    def _on_meta(self) -> tuple[Denoiser, Any]:
        return self.parts("meta")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""
        return self._on_meta[0].latent_shape

    @property
    def dimensions(self) -> int:
        """Values D = C h w of one latent."""
        return torch.Size(self.latent_shape).numel()

    @property
    def image_size(self) -> int:
        """Side H = W of the images, in pixels."""
        return self.latent_shape[1] * downsampling(self._on_meta[1])

    @property
    def parameters(self) -> int:
        """Weights of the network, without autoencoder and text encoders."""
        return sum(weight.numel() for weight in self._on_meta[0].network.parameters())

    @property
    def condition(self) -> Condition:
        """A condition of the right shapes."""
        return self._on_meta[0].example

    def with_network(self, **changes: Any) -> PriorShape:
        """Return the same shape with another configuration of the network."""
        return replace(self, network={**self.network, **changes})

    def parts(self, device: str | torch.device) -> tuple[Denoiser, Any]:
        """Return an untrained network, in its family, and an autoencoder on ``device``; on ``meta`` they take no memory."""
        import diffusers

        of_network: Any = getattr(diffusers, self.network["_class_name"])
        family: Any = self.family
        with seeded(0, torch.device(device)), torch.device(device):
            network = of_network.from_config(dict(self.network))
            # The networks' own `to` warns about parts that should stay in float32, naming none.
            network = nn.Module.to(network, device, self.dtype)
            if self.autoencoder is None:
                autoencoder: Any = Pixels(int(self.network["in_channels"]))
            else:
                autoencoder = getattr(diffusers, self.autoencoder.get("_class_name", "AutoencoderKL")).from_config(dict(self.autoencoder))
                autoencoder = nn.Module.to(autoencoder, device, self.autoencoder_dtype or self.dtype)
        if issubclass(self.family, TextDenoiser):
            return family(network, self.repository), autoencoder
        rows = self.network.get("num_embeds_ada_norm") or self.network.get("num_class_embeds") or 0
        return family(network, self.class_names or tuple(map(str, range(rows)))), autoencoder

    def untrained(self) -> Prior:
        """Return a prior of this shape with random weights."""
        denoiser, autoencoder = self.parts(default_device())
        return Prior(denoiser, autoencoder, self.scheduler)

    def calls(self, images: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return, on ``meta``, images [N, 3, H, W], and latents [N, C, h, w], times [N] and condition of a call of the network."""
        autoencoder_dtype = torch.float32 if self.autoencoder is None else self.autoencoder_dtype or self.dtype
        pictures = torch.empty(images, 3, self.image_size, self.image_size, device="meta", dtype=autoencoder_dtype)
        latents = torch.empty(images, *self.latent_shape, device="meta", dtype=self.dtype)
        times = torch.zeros(images, device="meta")
        inputs = self.condition.batch(images)
        given = {name: value.to("meta", self.dtype if value.is_floating_point() else None) for name, value in inputs.items()}
        return pictures, latents, times, given
