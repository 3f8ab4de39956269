"""The pieces that a distillation falls into, each of which any process can do.

Their sizes are fixed, and what they give is put together in a fixed order: nothing depends on where they are done.

Legend: N latents, K images in a group, C classes, D = C*h*w dimensions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.data.loader import Batches
from d3hr.distillation.ddim import check_finite, draw_images, forward_noise, invert
from d3hr.distillation.estimation import Estimate, StandardError
from d3hr.distillation.grouping import draw_mixture, mode_name
from d3hr.distillation.mixture import ClassMixture, k_means_centres, nearest, thinned
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import NumericalError
from d3hr.prior.model import Prior
from d3hr.seeds import derive_seed, generator_for

BATCHES_OF_A_PIECE = 8


@dataclass(frozen=True)
class Part:
    """Images of one class to be matched: places ``start`` to ``stop`` in the order in which they are looked at."""

    class_name: str
    start: int
    stop: int

    @property
    def images(self) -> int:
        """Images of the part; fewer are looked at where the tolerance is reached before."""
        return self.stop - self.start


@dataclass(frozen=True)
class Matched:
    """The statistics of what was seen of a class, and their standard error where that is a sample."""

    mixture: ClassMixture
    error: StandardError


def merged(parts: Iterable[Matched]) -> Matched:
    """Return what the parts of a class gave together, in the order given; a class in several parts is seen whole."""
    first, *rest = parts
    if not rest:
        return first
    return Matched(functools.reduce(ClassMixture.merge, (part.mixture for part in rest), first.mixture), StandardError(0.0, 0.0))


@dataclass(frozen=True)
class Matching:
    """Encodes images, carries their latents to the statistics level and takes their mean and spread.

    Attributes:
        images: the real images, at the prior's size.
        prior: the diffusion prior.
        settings: how latents are carried, and how many.
        conditioning_ids: row of the prior's label table for each class.
        decoders: worker processes that decode images ahead.
    """

    images: ImageData
    prior: Prior
    settings: DistillSettings
    conditioning_ids: Mapping[str, int]
    decoders: int = 0

    def parts(self, class_name: str) -> list[Part]:
        """Return the pieces of a class: the whole of it where what comes next depends on what came before."""
        count = self._limit(class_name)
        whole = self.settings.subsampled or self.settings.carrying == "forward_noise" or self.settings.modes > 1
        size = count if whole else BATCHES_OF_A_PIECE * self.settings.batch_size
        return [Part(class_name, start, min(start + size, count)) for start in range(0, count, size)]

    def open(self) -> Callable[[Part], Matched]:
        """Return the function that matches a part."""
        batches = Batches(self.images, self.decoders)
        return lambda part: self._match(part, batches)

    def _limit(self, class_name: str) -> int:
        count, most = self.images.counts[class_name], self.settings.max_images_per_class
        return count if most is None else min(count, most)

    def _match(self, part: Part, batches: Batches) -> Matched:
        name, size, tolerance = part.class_name, self.settings.batch_size, self.settings.tolerance
        dimensions, rank, modes = torch.Size(self.prior.latent_shape).numel(), self.settings.rank, self.settings.modes
        estimate = Estimate.empty(dimensions, self.images.counts[name], rank if modes == 1 else 0)
        noise = generator_for("forward noise", name)
        with NumericalError.naming(name):
            centres = self._centres(part, batches)
            mixture = ClassMixture.empty(dimensions, modes, rank)
            for batch in batches.of(name, self._places(part), size):
                clean = self._encoded(batch)
                latents = self._carried(clean, name, noise).flatten(1)
                estimate = estimate.update(latents, full=len(batch) == size)
                if centres is not None:
                    mixture = mixture.update(latents, nearest(clean.flatten(1).cpu(), centres))
                if tolerance is not None and estimate.standard_error.within(tolerance):
                    break
        return Matched(ClassMixture((estimate.gaussian,)) if centres is None else mixture, estimate.standard_error)

    def _centres(self, part: Part, batches: Batches) -> Tensor | None:
        """Return the centres [modes, D] of clusters of a class's clean latents, as many as it has images at most; None for one mode.

        They are looked for among clean latents, where images of a kind lie close together: noise is what most of an inverted latent is.
        """
        if self.settings.modes == 1:
            return None
        some = thinned(self._places(part))
        latents = [self._encoded(batch).flatten(1).cpu() for batch in batches.of(part.class_name, some, self.settings.batch_size)]
        centres = k_means_centres(torch.cat(latents), min(self.settings.modes, len(some)), derive_seed("modes", part.class_name))
        return torch.from_numpy(centres)

    def _places(self, part: Part) -> Sequence[int]:
        """Return which images of the class a part is: in the order of the data, or a random one of which any beginning is a sample."""
        if not self.settings.subsampled:
            return range(part.start, part.stop)
        order = torch.randperm(self.images.counts[part.class_name], generator=generator_for("subsample", part.class_name))
        places: list[int] = order[part.start : part.stop].tolist()
        return places

    def _encoded(self, batch: Tensor) -> Tensor:
        """Return the clean latents [N, C, h, w] of a batch."""
        clean = self.prior.encode(batch)
        check_finite(clean, "encoding", "in its latents")
        return clean

    def _carried(self, clean: Tensor, class_name: str, noise: torch.Generator) -> Tensor:
        """Return clean latents [N, C, h, w] at the statistics level."""
        level, steps = self.settings.statistics_level, self.settings.steps
        if self.settings.carrying == "forward_noise":
            return forward_noise(self.prior.schedule, clean, level=level, steps=steps, generator=noise)
        return invert(
            self.prior,
            clean,
            torch.full((len(clean),), self.conditioning_ids[class_name]),
            level=level,
            steps=steps,
            guidance_scale=self.settings.inversion_guidance,
            solver=self.settings.solver,
            stride=self.settings.inversion_stride,
        )


@dataclass(frozen=True)
class Draw:
    """Images of one class to be drawn: from its mixture, by the candidates that a search found for its modes, if there was one."""

    class_name: str
    mixture: ClassMixture
    candidates: Mapping[str, int]


@dataclass(frozen=True)
class Draws(Sequence[Draw]):
    """What is to be drawn, class by class; a mixture is looked up when its turn comes."""

    class_names: Sequence[str]
    mixtures: Mapping[str, ClassMixture]
    candidates: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.class_names)

    def __getitem__(self, index: int) -> Draw:  # type: ignore[override]
        name = self.class_names[index]
        alone = [mode.alone() for mode in self.mixtures[name].modes]
        names = [mode_name(name, index) for index in range(len(alone))]
        found = {mode: self.candidates[mode] for mode in names if mode in self.candidates}
        return Draw(name, ClassMixture(tuple(alone)), found)


@dataclass(frozen=True)
class Drawing:
    """Draws a group of latents from a class's mixture, denoises and decodes it.

    Attributes:
        prior: the diffusion prior.
        settings: how groups are chosen and denoised.
        conditioning_ids: row of the prior's label table for each class.
    """

    prior: Prior
    settings: DistillSettings
    conditioning_ids: Mapping[str, int]

    def open(self) -> Callable[[Draw], Tensor]:
        """Return the function that gives the images float [K, 3, H, W] in [-1, 1] of a class."""
        return self._draw

    def _draw(self, draw: Draw) -> Tensor:
        group = draw_mixture(draw.class_name, draw.mixture, self.settings, draw.candidates).float()
        with NumericalError.naming(draw.class_name):
            return draw_images(
                self.prior,
                group.view(-1, *self.prior.latent_shape),
                self.conditioning_ids[draw.class_name],
                level=self.settings.denoising_level,
                steps=self.settings.steps,
                guidance_scale=self.settings.denoising_guidance,
                batch_size=self.settings.batch_size,
            )
