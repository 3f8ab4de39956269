"""Real images as they are: a choice of each class's own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.distillation.settings import Network, Space
from d3hr.errors import require_kind
from d3hr.fileio.staging import StagedFolder
from d3hr.methods.base import MethodSettings
from d3hr.methods.features import class_features, network_of
from d3hr.methods.job import Job, MethodInputs
from d3hr.progress import BY_DEFAULT, Progress
from d3hr.seeds import derive_seed, generator_for
from d3hr.selection.real_images import as_they_are, sources_of
from d3hr.selection.rules import centre, farthest_order, herding_order
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.packing import tile_side
from d3hr.sets.writer import write_set

_NEEDS: dict[Space, frozenset[Network]] = {"pixel": frozenset(), "latent": frozenset({"prior"}), "teacher": frozenset({"teacher"})}


class RandomSettings(MethodSettings):
    """Settings of a random choice."""

    pack: int = Field(default=1, ge=1, le=8)
    """Real images along each side of a stored image: 2 stores four in each, at half the side."""

    def check(self, inputs: MethodInputs) -> None:
        """Refuse a side that cannot be packed."""
        tile_side(inputs.image_size, self.pack)


class SelectionSettings(MethodSettings):
    """Settings of a choice by distances."""

    space: Space = "pixel"
    """Where distances are measured."""

    @property
    def needs(self) -> frozenset[Network]:
        """The network that the space looks through."""
        return _NEEDS[self.space]


def random_real(
    images: ImageData, out: str | Path, *, ipc: int, image_size: int, seed: int = 0, progress: Progress = BY_DEFAULT
) -> DistilledSet:
    """Draw ``ipc`` real images of each class without replacement.

    Args:
        images: the real images.
        out: folder to write.
        ipc: images per class.
        image_size: side in pixels.
        seed: seed of the draw; a class's images depend on it and on the class's name.
        progress: where to report.

    Raises:
        DataError: a class has fewer than ``ipc`` images.
        OutputError: ``out`` holds something else.
    """
    require_kind("images", images, ImageData, OPEN_IMAGES)
    job = Job("random_real", MethodInputs(images, image_size), Path(out), ipc, seed, Path(f"{out}-shared"), progress)
    return write_random_real(job, RandomSettings())


def write_random_real(job: Job, settings: RandomSettings) -> DistilledSet:
    """Write random real images of each class, without replacement."""
    count = job.ipc * settings.pack**2

    def choose(name: str) -> Tensor:
        return torch.randperm(job.images.counts[name], generator=generator_for(job.seed, "random_real", name))[:count]

    return _write_choice(job, choose, {"seed": job.seed}, settings.pack)


def write_herding(job: Job, settings: SelectionSettings) -> DistilledSet:
    """Write :func:`~d3hr.selection.rules.herding_order` of each class; no seed decides anything."""
    return _write_greedy(job, settings, herding_order)


def write_k_center(job: Job, settings: SelectionSettings) -> DistilledSet:
    """Write :func:`~d3hr.selection.rules.farthest_order` of each class; no seed decides anything."""
    return _write_greedy(job, settings, farthest_order)


def write_k_means(job: Job, settings: SelectionSettings) -> DistilledSet:
    """Write :func:`~d3hr.selection.rules.centre` of each class."""

    def choose(name: str) -> list[int]:
        return centre(class_features(job, settings.space, name), job.ipc, derive_seed(job.seed, "k_means", name))

    values = {"seed": job.seed, "space": settings.space, **network_of(job, settings.space)}
    return _write_choice(job, choose, values)


def _write_greedy(job: Job, settings: SelectionSettings, first: Callable[[Tensor, int], list[int]]) -> DistilledSet:
    # The seed stays out of the key: sets of all seeds are one set.
    values = {"space": settings.space, **network_of(job, settings.space)}

    def choose(name: str) -> list[int]:
        return first(class_features(job, settings.space, name), job.ipc)

    return _write_choice(job, choose, values)


def _write_choice(job: Job, choose: Callable[[str], Sequence[int] | Tensor], settings: Mapping[str, Any], pack: int = 1) -> DistilledSet:
    """Write the real images of each class at the indices that ``choose`` returns, ``pack`` x ``pack`` of them in each stored image."""
    job.require_real_images(job.ipc * pack**2)
    manifest = job.manifest(settings, pack=pack)
    with StagedFolder(job.out, manifest.key()) as stage:
        if not stage.finished:
            chosen = {name: [int(index) for index in choose(name)] for name in job.images.class_names}
            described = manifest.with_sources(sources_of(job.images, chosen, pack))
            write_set(stage, described, as_they_are(job.images, chosen, job.inputs.image_size, pack), progress=job.progress)
    return DistilledSet.load(job.out)
