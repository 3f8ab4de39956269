"""A bounded sample of latents, followed from clean to noisy, on which normality is tested.

Legend: N images, D = C*h*w dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from d3hr.data import ImageData
from d3hr.distillation.inversion import inversion_path
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import NumericalError
from d3hr.prior.conditioning import Conditioning
from d3hr.prior.model import Prior

CLASSES, IMAGES, DIMENSIONS = 5, 64, 256
"""Size of the sample: classes evenly spread, their first images, dimensions evenly spread."""
FEWEST = 8
"""Classes of fewer images are not sampled: a test of normality sees nothing there."""


@dataclass(frozen=True)
class LatentSample:
    """Which latents are looked at.

    Attributes:
        images: the real images, at the prior's size.
        classes: the prior's class for each sampled class.
        chosen: the sampled dimensions, indices into a flattened latent.
        dimensions: D, how many dimensions a latent has.
    """

    images: ImageData
    classes: tuple[Conditioning, ...]
    chosen: Tensor
    dimensions: int

    @classmethod
    def of(cls, images: ImageData, prior: Prior, conditioning: Sequence[Conditioning]) -> LatentSample | None:
        """Choose the sample among the classes of ``conditioning``; None where all are too small to be tested."""
        large = [match for match in conditioning if images.counts[match.class_name] >= FEWEST]
        if not large:
            return None
        classes = tuple(large[int(place)] for place in torch.linspace(0, len(large) - 1, min(CLASSES, len(large))))
        dimensions = torch.Size(prior.latent_shape).numel()
        return cls(images, classes, torch.linspace(0, dimensions - 1, min(DIMENSIONS, dimensions)).long(), dimensions)

    def __str__(self) -> str:
        counts = [min(IMAGES, self.images.counts[match.class_name]) for match in self.classes]
        return f"{sum(counts)} images of {len(self.classes)} classes, {len(self.chosen)} of {self.dimensions} dimensions"

    def walk(self, match: Conditioning, prior: Prior, settings: DistillSettings, level: int) -> Iterator[Tensor]:
        """Yield the sampled dimensions [N, d] (on the CPU) of one class's latents at levels 0 to ``level``, one after the other.

        Raises:
            NumericalError: a latent is not finite; the message names the class.
        """
        clean = prior.encode(next(self.images.batches(match.class_name, IMAGES)))
        levels = inversion_path(
            prior,
            clean,
            torch.full((len(clean),), match.conditioning_id),
            level=level,
            steps=settings.steps,
            guidance_scale=settings.inversion_guidance,
            solver=settings.solver,
        )
        with NumericalError.naming(match.class_name):
            for latents in chain([clean], levels):
                yield latents.flatten(1)[:, self.chosen].cpu()
