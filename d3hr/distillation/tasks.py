"""The tasks that a distillation is divided into: statistics of chunks of a class, then the images of each class.

Any process can run any task. Their sizes are fixed and their results are put together in a fixed order, so that nothing depends on where
or in which order they run.

Legend: N images, C h w latent axes, D = C*h*w dimensions, K images in a group, H W image axes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.data.loader import Batches
from d3hr.distillation.chunks import ChunkStatistics, ClassChunk, Division
from d3hr.distillation.ddim import check_finite, denoise, forward_noise, invert
from d3hr.distillation.estimation import ClassEstimate
from d3hr.distillation.grouping import draw_mixture, mode_name
from d3hr.distillation.mixture import ClassMixture, clustering_subset, k_means_centres, nearest_centres
from d3hr.distillation.settings import DistillSettings, Solver
from d3hr.errors import DataError, NumericalError, listed
from d3hr.prior.conditions import Condition
from d3hr.prior.model import Prior
from d3hr.prior.schedules.schedule import Schedule
from d3hr.seeds import derive_seed, generator_for

BATCHES_PER_CHUNK = 8


@dataclass(frozen=True)
class StatisticsEstimator:
    """Encodes images of the prior's size, carries their latents to the statistics level and takes mean and spread there.

    ``conditions`` has what the prior is given of each class; ``decoders`` processes decode images ahead.
    """

    images: ImageData
    prior: Prior
    settings: DistillSettings
    conditions: Mapping[str, Condition]
    decoders: int = 0

    def division(self, class_name: str) -> Division:
        """Return how a class is divided into chunks."""
        return division(self.images.counts[class_name], self.settings)

    def open(self) -> Callable[[ClassChunk], ChunkStatistics]:
        """Return the function that gives the statistics of a chunk; where a latent is not finite, its error names the class."""
        return functools.partial(self._estimate, batches=Batches(self.images, self.decoders, self.prior.device))

    def _estimate(self, chunk: ClassChunk, batches: Batches) -> ChunkStatistics:
        name, settings = chunk.class_name, self.settings
        dimensions = torch.Size(self.prior.latent_shape).numel()
        estimate = ClassEstimate.empty(dimensions, self.images.counts[name], settings.rank if settings.modes == 1 else 0)
        mixture = ClassMixture.empty(dimensions, settings.modes, settings.rank)
        noise = generator_for("forward noise", name)
        with NumericalError.naming(name):
            centres = self._centres(chunk, batches)
            for batch in batches.of(name, self._indices(chunk), settings.batch_size):
                clean = self._encode(batch)
                latents = self._to_statistics_level(clean, name, noise).flatten(1)
                estimate = estimate.update(latents, full=len(batch) == settings.batch_size)
                if centres is not None:
                    mixture = mixture.update(latents, nearest_centres(clean.flatten(1).cpu(), centres))
                if settings.tolerance is not None and estimate.standard_error.within(settings.tolerance):
                    break
        return ChunkStatistics(ClassMixture((estimate.gaussian,)) if centres is None else mixture, estimate.standard_error)

    def _centres(self, chunk: ClassChunk, batches: Batches) -> Tensor | None:
        """Return the centres [modes, D] of clusters of a class's clean latents, at most as many as it has images; None for one mode.

        Clean latents are clustered because images of a kind are close together there: most of an inverted latent is noise.
        """
        if self.settings.modes == 1:
            return None
        subset = clustering_subset(self._indices(chunk))
        latents = [self._encode(batch).flatten(1).cpu() for batch in batches.of(chunk.class_name, subset, self.settings.batch_size)]
        centres = k_means_centres(torch.cat(latents), min(self.settings.modes, len(subset)), derive_seed("modes", chunk.class_name))
        return torch.from_numpy(centres)

    def _indices(self, chunk: ClassChunk) -> Sequence[int]:
        """Return which images of the class the chunk has."""
        return image_order(chunk.class_name, self.images.counts[chunk.class_name], self.settings)[chunk.start : chunk.stop]

    def _encode(self, batch: Tensor) -> Tensor:
        """Return the clean latents [N, C, h, w] of images [N, 3, H, W] in [-1, 1]."""
        clean = self.prior.encode(batch)
        check_finite(clean, "encoding", "in its latents")
        return clean

    def _to_statistics_level(self, clean: Tensor, class_name: str, noise: torch.Generator) -> Tensor:
        """Return clean latents [N, C, h, w] of one class at the statistics level."""
        level, steps = self.settings.statistics_level, self.settings.steps
        if self.settings.forward_process == "forward_noise":
            return forward_noise(self.prior.schedule, clean, level=level, steps=steps, generator=noise)
        return invert_by_settings(self.prior, clean, self.conditions[class_name], self.settings)


@dataclass(frozen=True)
class GenerateTask:
    """The images of one class to generate: from its mixture, with the candidates that a search found for its modes, if there was one."""

    class_name: str
    mixture: ClassMixture
    candidates: Mapping[str, int]


@dataclass(frozen=True)
class GenerateTasks(Sequence[GenerateTask]):
    """One task per class; a mixture is looked up only when its turn comes."""

    class_names: Sequence[str]
    mixtures: Mapping[str, ClassMixture]
    candidates: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.class_names)

    def __getitem__(self, index: int) -> GenerateTask:  # type: ignore[override]
        name = self.class_names[index]
        mixture = self.mixtures[name].detached_copy()
        modes = [mode_name(name, mode) for mode in range(len(mixture.modes))]
        return GenerateTask(name, mixture, {mode: self.candidates[mode] for mode in modes if mode in self.candidates})


@dataclass(frozen=True)
class ImageGenerator:
    """Draws a group of latents from a class's mixture, denoises and decodes it."""

    prior: Prior
    settings: DistillSettings
    conditions: Mapping[str, Condition]

    def open(self) -> Callable[[GenerateTask], Tensor]:
        """Return :meth:`generate`."""
        return self.generate

    def generate(self, task: GenerateTask) -> Tensor:
        """Return the images float [K, 3, H, W] in [-1, 1] of a class, by :func:`generate_images`; errors name the class."""
        group = draw_mixture(task.class_name, task.mixture, self.settings, task.candidates).float()
        with NumericalError.naming(task.class_name):
            return generate_images(
                self.prior,
                group.view(-1, *self.prior.latent_shape),
                self.conditions[task.class_name],
                level=self.settings.denoising_level,
                steps=self.settings.steps,
                guidance_scale=self.settings.denoising_guidance,
                batch_size=self.settings.batch_size,
                solver=self.settings.solver,
            )


def division(count: int, settings: DistillSettings) -> Division:
    """Return how a class of ``count`` images is divided into chunks: not at all where what comes next depends on what came before."""
    sampled = settings.samples(count)
    if settings.max_images_per_class is not None:
        count = min(count, settings.max_images_per_class)
    sequential = sampled or settings.forward_process == "forward_noise" or settings.modes > 1
    return Division(count, count if sequential else BATCHES_PER_CHUNK * settings.batch_size)


def require_two_images(counts: Mapping[str, int]) -> None:
    """Raise :class:`DataError` unless every class has at least two images, which the statistics need."""
    small = [f"{name} ({count})" for name, count in counts.items() if count < 2]
    if small or not counts:
        raise DataError(
            "Each class needs at least two images, to measure their spread.",
            found=listed(small) or "no class",
            hint="add images to these classes or remove them.",
        )


def image_order(class_name: str, count: int, settings: DistillSettings) -> Sequence[int]:
    """Return the order in which the images of a class are looked at: that of the data, or a random one, whose first n are a sample."""
    if not settings.samples(count):
        return range(count)
    order: list[int] = torch.randperm(count, generator=generator_for(settings.seed_of_sample, "subsample", class_name)).tolist()
    return order


def require_grid(schedule: Schedule, settings: DistillSettings) -> None:
    """Refuse, as a ``SettingsError``, a grid that a schedule does not have, and a solver that cannot follow it."""
    points = schedule.points(settings.steps)
    if settings.solver == "midpoint":
        schedule.between(points[0], points[-1])


def invert_by_settings(prior: Prior, latents: Tensor, condition: Condition, settings: DistillSettings, level: int | None = None) -> Tensor:
    """Invert clean latents [N, C, h, w] of one class to a level, by default that of the statistics.

    It is :func:`~d3hr.distillation.ddim.invert` with the steps, guidance, solver and stride of the settings.
    """
    return invert(
        prior,
        latents,
        condition,
        level=settings.statistics_level if level is None else level,
        steps=settings.steps,
        guidance_scale=settings.inversion_guidance,
        solver=settings.solver,
        stride=settings.inversion_stride,
    )


def generate_images(
    prior: Prior,
    latents: Tensor,
    condition: Condition,
    *,
    level: int,
    steps: int,
    guidance_scale: float,
    batch_size: int = 64,
    solver: Solver = "ddim",
) -> Tensor:
    """Denoise and decode latents [K, C, h, w] of one class at ``level`` to images float [K, 3, H, W] in [-1, 1], on the CPU."""
    images = []
    for noisy in latents.split(batch_size):
        noisy = noisy.to(prior.device)
        clean = denoise(prior, noisy, condition, level=level, steps=steps, guidance_scale=guidance_scale, solver=solver)
        images.append(prior.decode(clean).cpu())
        check_finite(images[-1], "decoding", "in its pixels")
    return torch.cat(images)
