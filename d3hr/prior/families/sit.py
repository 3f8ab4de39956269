"""The family of SiT (arXiv 2401.08740): DiT's transformer trained on straight paths, whose output is a velocity.

Legend: N images, C h w latent axes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from d3hr.errors import PriorError
from d3hr.prior.families.denoiser import SCHEDULER_FILE
from d3hr.prior.families.dit import DiT
from d3hr.prior.families.sit_weights import read_checkpoint, read_safetensors, rows_of, to_diffusers
from d3hr.prior.imagenet import imagenet_labels
from d3hr.prior.repository import Repository, load_network, write_pipeline
from d3hr.prior.schedules.flow_matching import FlowMatching
from d3hr.prior.schedules.schedule import Schedule, require_usable

_CONFIG = "transformer/config.json"


class SiT(DiT):
    """A diffusion transformer with a label table, whose time runs from 0, noise, to 1, data, and whose output is clean latents less noise.

    Args:
        transformer: diffusers ``DiTTransformer2DModel``; its embedding of time is set to SiT's, whose frequencies end a little higher.
        class_names: name of each row of the label table but the last.
    """

    pipelines = ("SiTPipeline",)
    identity = ("SiT",)

    def __init__(self, transformer: Any, class_names: Sequence[str]) -> None:
        super().__init__(transformer, class_names)
        for block in transformer.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = 0.0

    @classmethod
    def reads(cls, repository: Repository) -> bool:
        """Return whether a repository is of this family: the file of a checkpoint, or a pipeline."""
        return repository.is_file or super().reads(repository)

    @classmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load SiT's own checkpoint, a copy in the layout of diffusers whose weights have SiT's names, or what d3hr saved.

        Code that such copies bring along is not run.
        """
        if repository.is_file:
            network = to_diffusers(read_checkpoint(repository), repository)
        elif _has_own_names(repository):
            config = repository.json(_CONFIG)
            if config.get("norm_type", "ln") != "ln":
                raise repository.unusable(f"transformer: its norm_type is {config['norm_type']}, where d3hr can use ln")
            network = to_diffusers(read_safetensors(repository), repository, heads=config.get("num_heads"))
        else:
            from diffusers import DiTTransformer2DModel

            network = load_network(DiTTransformer2DModel, repository, "transformer", dtype)
        # The network's own `to` warns about parts that should stay in float32, naming none.
        return cls(nn.Module.to(network, dtype), cls.labels_in(repository))

    @classmethod
    def labels_in(cls, repository: Repository) -> tuple[str, ...]:
        """Return the names of ``id2label``; where there are none, those of ImageNet for 1000 classes, else the numbers."""
        if repository.is_file:
            count, named = rows_of(read_checkpoint(repository)) - 1, False
        else:
            config = repository.json(_CONFIG)
            count = int(config["num_classes" if _has_own_names(repository) else "num_embeds_ada_norm"])
            named = bool(repository.json("model_index.json").get("id2label"))
        if named:
            return repository.class_names(count)
        return tuple(imagenet_labels().values()) if count == len(imagenet_labels()) else tuple(map(str, range(count)))

    @classmethod
    def load_autoencoder(cls, repository: Repository, dtype: torch.dtype) -> Any:
        """Load the autoencoder of a pipeline; a checkpoint has none."""
        if repository.is_file:
            raise PriorError(
                "A checkpoint of SiT has no autoencoder.",
                found=f"the file {repository.name} alone",
                hint="give the one that it was trained on, such as --autoencoder stabilityai/sd-vae-ft-ema.",
            )
        return super().load_autoencoder(repository, dtype)

    @classmethod
    def scheduler_config(cls, repository: Repository) -> dict[str, Any]:
        """Return the schedule as a scheduler of diffusers has it; copies have one of their own, or this one."""
        theirs = {} if repository.is_file else repository.json(SCHEDULER_FILE)
        require_usable("use_dynamic_shifting", theirs.get("use_dynamic_shifting") or False, (False,))
        shift = float(theirs.get("shift") or 1.0)
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": shift}

    def schedule(self, scheduler_config: Mapping[str, Any]) -> Schedule:
        """Return straight paths, with time from noise to data in [0, 1]."""
        return FlowMatching(float(scheduler_config.get("shift") or 1.0), time_scale=1.0, from_noise=True)

    def save(self, folder: Path, vae: Any, scheduler_config: Mapping[str, Any], licence: str | None) -> None:
        """Write a ``SiTPipeline``: diffusers opens its transformer and autoencoder, but has no pipeline that calls them as SiT needs it."""
        names = {str(label): name for label, name in enumerate(self.class_names)}
        write_pipeline(folder, "SiTPipeline", {"transformer": self.network, "vae": vae}, scheduler_config, {"id2label": names}, licence)


def _has_own_names(repository: Repository) -> bool:
    """Return whether the weights have SiT's names, and not those of diffusers."""
    return "num_embeds_ada_norm" not in repository.json(_CONFIG)
