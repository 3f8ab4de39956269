"""What every family of priors defines: its network, and what that is given of a class.

Legend: N images, C h w latent axes.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from d3hr.errors import PriorError, SettingsError, flag
from d3hr.prior.class_matching import Conditioning, match_classes
from d3hr.prior.conditions import Condition, Inputs
from d3hr.prior.repository import Repository, Variant, load_autoencoder
from d3hr.prior.schedules.reading import read_schedule
from d3hr.prior.schedules.schedule import Schedule

SCHEDULER_FILE = "scheduler/scheduler_config.json"


class Denoiser(ABC):
    """The network of a prior, of one family.

    Attributes:
        network: the diffusers model.
        class_names: name of each row of its label table; empty where it has none.
        identity: what next to the weights decides what it predicts, for a fingerprint.
        notes: what who loads the prior should know.
    """

    pipelines: ClassVar[tuple[str, ...]]
    """The diffusers pipelines of the family, by the ``_class_name`` of ``model_index.json``."""
    given_text: ClassVar[bool] = False
    """Whether what it is given of a class is a prompt."""
    network: Any
    class_names: tuple[str, ...] = ()
    identity: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def reads(cls, repository: Repository) -> bool:
        """Return whether a repository is of this family."""
        return not repository.is_file and repository.pipeline in cls.pipelines

    @classmethod
    @abstractmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load the network of a repository, on the CPU.

        Raises:
            PriorError: parts are missing or damaged, or do not fit each other.
        """

    @classmethod
    def labels_in(cls, repository: Repository) -> tuple[str, ...]:
        """Return the names of a repository's label table, of which no weight is read; empty where it has none."""
        return ()

    @classmethod
    def match_in(
        cls, repository: Repository, variant: Variant, class_names: Sequence[str], *, of: str, class_map: Mapping[str, str] | None = None
    ) -> tuple[Conditioning, ...]:
        """Return what a repository's prior is given for each class, as :meth:`match` does, of which no weight is read."""
        refuse_text(variant)
        return match_classes(class_names, cls.labels_in(repository), of=of, prior=repository.name, class_map=class_map)

    @classmethod
    def load_autoencoder(cls, repository: Repository, dtype: torch.dtype) -> Any:
        """Load the autoencoder of a repository, on the CPU; by default in the network's precision."""
        return load_autoencoder(repository, dtype)

    @classmethod
    def scheduler_config(cls, repository: Repository) -> dict[str, Any]:
        """Return the configuration of a repository's scheduler."""
        return repository.json(SCHEDULER_FILE)

    def schedule(self, scheduler_config: Mapping[str, Any]) -> Schedule:
        """Return the noise schedule; a configuration that cannot be followed is a ``PriorError``."""
        return read_schedule(scheduler_config)

    @property
    def weight(self) -> Tensor:
        """A weight of the network; diffusers' own ``device`` and ``dtype`` walk through all its modules at every call."""
        weight: Tensor = next(self.network.parameters())
        return weight

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""

    @abstractmethod
    def match(
        self, class_names: Sequence[str], *, of: str, class_map: Mapping[str, str] | None = None, allow_missing: bool = False
    ) -> tuple[Conditioning, ...]:
        """Return what the prior is given for each class of the data called ``of``.

        Args:
            class_map: class -> what the prior knows it as, for classes whose names do not match.
            allow_missing: leave out classes that the prior does not know, instead of refusing them.

        Raises:
            ClassMismatch: a class matches nothing that the prior knows, or several classes of it.
        """

    def adapted(self, variant: Variant) -> Self:
        """Take what a variant says of the network and its conditions; what is not for the family is a ``SettingsError``."""
        refuse_text(variant)
        return self

    def prompts(self, class_names: Sequence[str], template: str) -> dict[str, str]:
        """Return class -> prompt, by a template; a family that has no text for classes raises a ``SettingsError``."""
        refuse_text(Variant(prompt=template))
        return {}

    @property
    def record(self) -> dict[str, Any]:
        """What a manifest says of the prior that is peculiar to the family."""
        return {}

    @abstractmethod
    def conditions(self, conditioning: Sequence[Conditioning]) -> dict[str, Condition]:
        """Return the condition of each class, by its name."""

    @property
    @abstractmethod
    def example(self) -> Condition:
        """A condition of the right shapes, for measurements of time and memory."""

    @abstractmethod
    def __call__(self, z: Tensor, t: Tensor, inputs: Inputs) -> Tensor:
        """Return the network's output [N, C, h, w] for latents of its own precision, at times [N], with the arguments of conditions."""

    @abstractmethod
    def save(self, folder: Path, vae: Any, scheduler_config: Mapping[str, Any], licence: str | None) -> None:
        """Write the prior into a folder, in the form of the family's pipeline of diffusers."""

    def around(self, network: Any) -> Self:
        """Return the same of another network of the same shape."""
        other = copy.copy(self)
        other.network = network
        return other

    def to(self, device: str | torch.device) -> Self:
        """Move the network to a device."""
        self.network.to(device)
        return self

    def of_labels(self, labels: Tensor, guided: bool) -> Inputs:
        """Return the network's arguments for rows [N] of its label table; if ``guided``, for as many of no class too.

        Raises:
            SettingsError: the network has no such table.
        """
        raise SettingsError(
            "This prior has no label table.",
            found=f"labels of shape {tuple(labels.shape)}",
            hint="give a condition: prior.conditions(class_names) has one per class.",
        )

    def require_autoencoder(self, vae: Any) -> None:
        """Refuse an autoencoder whose latents the network does not take."""
        channels = self.latent_shape[0]
        if channels != vae.config.latent_channels:
            raise PriorError(
                "The prior's network does not fit its autoencoder.",
                found=f"{channels} input channels, {vae.config.latent_channels} latent channels",
                hint="combine a network with the autoencoder it was trained on.",
            )


def refuse_text(variant: Variant) -> None:
    """Refuse what is for text-to-image priors only."""
    for name in ("prompt", "negative_prompt", "lora"):
        if (value := getattr(variant, name)) is not None:
            raise SettingsError(
                f"{flag(name)} is for text-to-image priors; this one is given no text.",
                found=repr(value),
                hint="leave it out; the classes of a label table are matched by name, or by --class-map.",
            )
