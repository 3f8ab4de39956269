"""Real images that share the pixels of stored ones: pack^2 of them, small, in each (see :mod:`d3hr.sets.packing`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from d3hr.data.codec import to_unit_range
from d3hr.methods.base import MethodSettings
from d3hr.methods.job import Job, MethodInputs
from d3hr.methods.selection import write_random_real
from d3hr.seeds import generator_for
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.packing import pack_chosen, tile_side


class PackSettings(MethodSettings):
    """Settings of a choice of real images that may be packed."""

    pack: int = Field(default=1, ge=1)
    """Images along each side of a stored image: 2 stores four of half the side in each; 1 stores them as they are."""

    def check(self, inputs: MethodInputs) -> None:
        """Refuse an image size that does not split, and images that would be too small."""
        tile_side(inputs.image_size, self.pack)


def write_random_packed(job: Job, settings: PackSettings) -> DistilledSet:
    """Write random real images of each class, without replacement; a packed set begins with those of the set that is not packed."""
    if settings.pack == 1:
        return write_random_real(job, settings)

    def choose(name: str) -> Tensor:
        return torch.randperm(job.images.counts[name], generator=generator_for(job.seed, "random_real", name))[: job.ipc * settings.pack**2]

    return write_packed_choice(job, choose, {"seed": job.seed}, settings.pack)


def write_packed_choice(
    job: Job, choose: Callable[[str], Sequence[int] | Tensor], settings: Mapping[str, Any], factor: int
) -> DistilledSet:
    """Write a packed set of the real images of each class at the ``ipc * factor^2`` places that ``choose`` returns.

    Raises:
        DataError: a class has fewer images.
        SettingsError: the images would be too small.
    """
    side = job.inputs.image_size
    tile_side(side, factor)
    job.require_real_images(factor**2)
    return job.write(lambda name: to_unit_range(pack_chosen(job.inputs.images, name, choose(name), factor, side)), settings, pack=factor)
