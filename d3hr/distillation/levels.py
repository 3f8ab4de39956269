"""Chooses the level whose latents are closest to Gaussian for what it costs to reach, from a sample of the images.

Legend: N images, L levels, C h w latent axes, D = C*h*w dimensions of a latent, d of which are sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import calls_per_prediction, inversion_path, num_predictions
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress

MEASURING_LEVELS = "measuring normality by level"
"""Title of the bar of a choice."""
SAMPLE_CLASSES, SAMPLE_IMAGES, SAMPLE_DIMENSIONS = 5, 64, 256
"""Largest size of a sample: classes, images of each, dimensions of a latent."""
MIN_IMAGES = 8
"""Classes of fewer images are not sampled: a test of normality has no power there."""
SIGNIFICANCE = 0.05
"""A dimension is rejected where a test's p-value is below."""
LEAST_GAIN = 0.02
"""A smaller rise in normality over all levels is no ground for a choice."""


@dataclass(frozen=True)
class LatentSample:
    """Images of some classes, at the prior's size, and dimensions of a latent, whose distribution is examined."""

    images: ImageData
    classes: tuple[Conditioning, ...]
    """The sampled classes, of which the first images are taken."""
    indices: Tensor
    """The sampled dimensions of a flattened latent, int64 [d]."""
    dimensions: int

    @classmethod
    def choose(cls, images: ImageData, prior: Prior, conditioning: Sequence[Conditioning]) -> LatentSample | None:
        """Return evenly spread classes of ``conditioning`` and dimensions; None where every class has fewer than MIN_IMAGES images."""
        large = [match for match in conditioning if images.counts[match.class_name] >= MIN_IMAGES]
        if not large:
            return None
        classes = tuple(large[int(index)] for index in torch.linspace(0, len(large) - 1, min(SAMPLE_CLASSES, len(large))))
        dimensions = torch.Size(prior.latent_shape).numel()
        return cls(images, classes, torch.linspace(0, dimensions - 1, min(SAMPLE_DIMENSIONS, dimensions)).long(), dimensions)

    def __str__(self) -> str:
        counts = [min(SAMPLE_IMAGES, self.images.counts[match.class_name]) for match in self.classes]
        return f"{sum(counts)} images of {len(self.classes)} classes, {len(self.indices)} of {self.dimensions} dimensions"

    def latents_by_level(self, match: Conditioning, prior: Prior, settings: DistillSettings, level: int) -> Iterator[Tensor]:
        """Yield the sampled dimensions [N, d] (on the CPU) of one class's latents at each level from 0 to ``level``."""
        clean = prior.encode(next(self.images.batches(match.class_name, SAMPLE_IMAGES)))
        condition = prior.denoiser.conditions([match])[match.class_name]
        guidance, solver = settings.inversion_guidance, settings.solver
        inverted = inversion_path(
            prior, clean, condition, level=level, steps=settings.steps, guidance_scale=guidance, solver=solver, stride=1
        )
        with NumericalError.naming(match.class_name):
            for latents in chain([clean], inverted):
                yield latents.flatten(1)[:, self.indices].cpu()


@dataclass(frozen=True)
class LevelEvidence:
    """How Gaussian the latents of a sample are at one level, and what it costs to get there."""

    level: int
    timestep: int | float
    calls: int
    """Network calls that carry one image there."""
    normality: float
    """Share of (class, dimension) pairs that the Shapiro-Wilk test does not reject at 5 %; 0.95 for Gaussian latents."""


@dataclass(frozen=True)
class LevelChoice:
    """A level with the reason in a sentence, the sample in words and the evidence of every level, in order."""

    level: int
    reason: str
    sample: str
    evidence: tuple[LevelEvidence, ...]

    def as_text(self) -> str:
        """Return the choice as lines for people: every fifth level, and those around the chosen one."""
        shown = [row for row in self.evidence if row.level % 5 == 0 or abs(row.level - self.level) <= 1 or row is self.evidence[-1]]
        lines = [f"level {self.level} chosen: {self.reason} ({self.sample})", "level  timestep  calls per image  normal dimensions"]
        lines += [
            f"{row.level:5d}  {row.timestep:8.0f}  {row.calls:15d}  {100 * row.normality:15.1f} %{'  <' if row.level == self.level else ''}"
            for row in shown
        ]
        return "\n".join(lines)


def choose_level(
    images: ImageData, prior: Prior, conditioning: Sequence[Conditioning], settings: DistillSettings, progress: Progress = SILENT
) -> LevelChoice:
    """Measure normality on a sample at every level and return the knee of the curve.

    Beyond the :func:`knee` a network call buys less normality than on average. Where noise makes nothing more normal, the settings' own
    level stays. Images have the prior's size.
    """
    sample = LatentSample.choose(images, prior, conditioning)
    if sample is None:
        raise SettingsError(
            f"--level auto needs a class of at least {MIN_IMAGES} images.",
            found=f"{max(images.counts.values())} in the largest",
            hint="give a number.",
        )
    evidence = measure_normality(sample, prior, settings, progress)
    normality = torch.tensor([row.normality for row in evidence])
    if float(normality.max() - normality[0]) < LEAST_GAIN:
        reason = f"no level is closer to Gaussian than clean latents by {100 * LEAST_GAIN:.0f} points, so the preset's stays"
        return LevelChoice(settings.statistics_level, reason, str(sample), evidence)
    reason = f"beyond it, network calls buy less normality than on average; best anywhere {100 * float(normality.max()):.1f} %"
    return LevelChoice(knee(normality), reason, str(sample), evidence)


def measure_normality(
    sample: LatentSample, prior: Prior, settings: DistillSettings, progress: Progress = SILENT
) -> tuple[LevelEvidence, ...]:
    """Return how Gaussian the latents of a sample are at every level of the grid, averaged over its classes.

    Every level is visited; its cost is that of an inversion by the settings' own stride.
    """
    normality = torch.zeros(len(sample.classes), settings.steps)
    with progress.bar(MEASURING_LEVELS, len(sample.classes)) as bar:
        for row, match in enumerate(sample.classes):
            for level, latents in enumerate(sample.latents_by_level(match, prior, settings, settings.steps - 1)):
                normality[row, level] = normal_share(latents)
            bar.update(row + 1, note=match.class_name)
    calls = calls_per_prediction(settings.inversion_guidance)
    levels = zip((point.t for point in prior.schedule.points(settings.steps)), normality.mean(dim=0).tolist(), strict=True)
    return tuple(
        LevelEvidence(level, timestep, calls * num_predictions(level, settings.inversion_stride, settings.solver), share)
        for level, (timestep, share) in enumerate(levels)
    )


def knee(values: Tensor) -> int:
    """Return the index, at least 1, of ``values`` [L] furthest above the straight line from (0, first) to (L - 1, highest).

    "Finding a kneedle in a haystack" (Satopaa et al. 2011), for a curve that need not be highest at its end.
    """
    rise = (values - values[0]) / (values.max() - values[0])
    return max(1, int((rise - torch.linspace(0, 1, len(values))).argmax()))


def shapiro_pvalues(latents: Tensor) -> Tensor:
    """Return the p-value [D] (float64) of the Shapiro-Wilk test for each dimension of latents [N, D], N >= 3; 0 for one without spread."""
    from scipy.stats import shapiro

    x = latents.double().numpy()
    spread = x.std(axis=0) > 0
    values = torch.zeros(x.shape[1], dtype=torch.float64)
    if spread.any():
        values[torch.from_numpy(spread)] = torch.from_numpy(shapiro(x[:, spread], axis=0).pvalue)
    return values


def normal_share(latents: Tensor) -> float:
    """Return the share of the dimensions of latents [N, D], N >= 3, that the Shapiro-Wilk test does not reject at 5 %."""
    return float((shapiro_pvalues(latents) >= SIGNIFICANCE).double().mean())
