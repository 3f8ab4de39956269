"""The family of DiT (arXiv 2212.09748): class-conditional diffusion transformers, as diffusers' ``DiTPipeline`` stores them.

Legend: N images, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from d3hr.errors import PriorError
from d3hr.prior.class_matching import Conditioning, match_classes
from d3hr.prior.conditions import Condition, Inputs
from d3hr.prior.families.denoiser import Denoiser
from d3hr.prior.repository import Repository, load_network, write_pipeline


class DiT(Denoiser):
    """A diffusion transformer with a label table, whose last row is the null class.

    Args:
        transformer: diffusers ``DiTTransformer2DModel``.
        class_names: name of each row of the label table but the last.

    Raises:
        PriorError: names and label table disagree, or the outputs are not those of a noise prediction.
    """

    pipelines = ("DiTPipeline",)

    def __init__(self, transformer: Any, class_names: Sequence[str]) -> None:
        config = transformer.config
        if config.num_embeds_ada_norm != len(class_names):
            raise PriorError(
                "The prior's transformer and its class names disagree.",
                found=f"{config.num_embeds_ada_norm} classes in the transformer, {len(class_names)} names",
                hint="repair id2label in model_index.json.",
            )
        if transformer.out_channels not in (config.in_channels, 2 * config.in_channels):
            raise PriorError(
                "The prior's transformer predicts neither noise nor noise and variance.",
                found=f"{config.in_channels} input channels, {transformer.out_channels} outputs",
                hint="use a transformer with as many outputs as inputs, or twice as many.",
            )
        self.network, self.class_names = transformer, tuple(class_names)

    @classmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load the transformer of a ``DiTPipeline``."""
        from diffusers import DiTTransformer2DModel

        return cls(load_network(DiTTransformer2DModel, repository, "transformer", dtype), cls.labels_in(repository))

    @classmethod
    def labels_in(cls, repository: Repository) -> tuple[str, ...]:
        """Return the names of ``id2label`` in ``model_index.json``; where diffusers itself wrote that, without names, the numbers."""
        return repository.class_names(int(repository.json("transformer/config.json")["num_embeds_ada_norm"]))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    def match(
        self, class_names: Sequence[str], *, of: str, class_map: Mapping[str, str] | None = None, allow_missing: bool = False
    ) -> tuple[Conditioning, ...]:
        """Return the row of the label table of each class, by :func:`~d3hr.prior.class_matching.match_classes`."""
        return match_classes(class_names, self.class_names, of=of, class_map=class_map, allow_missing=allow_missing)

    def conditions(self, conditioning: Sequence[Conditioning]) -> dict[str, Condition]:
        """Return the rows as conditions."""
        return {match.class_name: self._row(match.conditioning_id) for match in conditioning if match.conditioning_id is not None}

    @property
    def example(self) -> Condition:
        """The first class."""
        return self._row(0)

    def _row(self, row: int) -> Condition:
        return Condition(row, {"class_labels": torch.tensor(row)}, {"class_labels": torch.tensor(len(self.class_names))})

    def of_labels(self, labels: Tensor, guided: bool) -> Inputs:
        """Return the rows themselves and, if ``guided``, as many of the null class."""
        null = torch.full_like(labels, len(self.class_names))
        return {"class_labels": torch.cat([labels, null]) if guided else labels}

    def __call__(self, z: Tensor, t: Tensor, inputs: Inputs) -> Tensor:
        """Return the prediction [N, C, h, w]; a transformer with learned variance returns that after it."""
        output: Tensor = self.network(z, timestep=t, **inputs, return_dict=False)[0]
        return output[:, : z.shape[1]]

    def save(self, folder: Path, vae: Any, scheduler_config: Mapping[str, Any], licence: str | None) -> None:
        """Write a ``DiTPipeline``."""
        names = {str(label): name for label, name in enumerate(self.class_names)}
        write_pipeline(folder, "DiTPipeline", {"transformer": self.network, "vae": vae}, scheduler_config, {"id2label": names}, licence)
