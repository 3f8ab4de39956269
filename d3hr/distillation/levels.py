"""Chooses the level whose latents are closest to Gaussian for what it costs to reach.

Legend: N images, L levels, D = C*h*w dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from d3hr.data import ImageData
from d3hr.distillation.inversion import calls_of_prediction, inversion_path
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.conditioning import Conditioning
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress

CLASSES, IMAGES, DIMENSIONS = 5, 64, 256
"""Size of the sample: classes evenly spread, their first images, dimensions evenly spread."""
FEWEST = 8
"""Classes of fewer images are not sampled: the test sees nothing there."""
SIGNIFICANCE = 0.05
LEAST_GAIN = 0.02
"""A smaller rise in normality over all levels is no ground for a choice."""


@dataclass(frozen=True)
class LevelNormality:
    """How Gaussian the latents of a sample are at one level.

    Attributes:
        level: the level.
        timestep: its training timestep.
        calls: network calls that carry one image there.
        normality: share of (class, dimension) pairs that the Shapiro-Wilk test does not reject at 5 %; 0.95 for Gaussian latents.
    """

    level: int
    timestep: int
    calls: int
    normality: float


@dataclass(frozen=True)
class LevelChoice:
    """A level with the evidence for it."""

    level: int
    reason: str
    sample: str
    evidence: tuple[LevelNormality, ...]

    def as_values(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        return asdict(self)

    def as_text(self) -> str:
        """Return the choice as lines for people: every fifth level, and those around the chosen one."""
        shown = [row for row in self.evidence if row.level % 5 == 0 or abs(row.level - self.level) <= 1 or row is self.evidence[-1]]
        lines = [f"level {self.level} chosen: {self.reason} ({self.sample})", "level  timestep  calls an image  normal dimensions"]
        lines += [
            f"{row.level:5d}  {row.timestep:8d}  {row.calls:14d}  {100 * row.normality:15.1f} %{'  <' if row.level == self.level else ''}"
            for row in shown
        ]
        return "\n".join(lines)


def choose_level(
    images: ImageData, prior: Prior, conditioning: Sequence[Conditioning], settings: DistillSettings, progress: Progress = SILENT
) -> LevelChoice:
    """Measure normality on a sample at every level and return the knee of the curve.

    The knee (Satopaa et al., "Finding a kneedle in a haystack", 2011) is the level that stands highest above the straight line from the
    clean latents to the top: beyond it a network call buys less normality than on average. Where noise makes nothing more normal, the
    settings' own level stays.

    Args:
        images: the real images, at the prior's size.
        prior: the diffusion prior.
        conditioning: the prior's class for each class of ``images``.
        settings: steps, guidance and solver of the inversion, and the level to fall back on.
        progress: where to report.

    Raises:
        SettingsError: every class is too small to be tested.
        NumericalError: a latent is not finite.
    """
    evidence, sample = _normality_by_level(images, prior, conditioning, settings, progress)
    values = torch.tensor([row.normality for row in evidence])
    gain = float(values.max() - values[0])
    if gain < LEAST_GAIN:
        reason = f"no level is closer to Gaussian than clean latents by {100 * LEAST_GAIN:.0f} points, so the preset's stays"
        return LevelChoice(settings.statistics_level, reason, sample, evidence)
    level = knee(values)
    reason = f"beyond it, network calls buy less normality than on average; best anywhere {100 * float(values.max()):.1f} %"
    return LevelChoice(level, reason, sample, evidence)


def knee(values: Tensor) -> int:
    """Return the index of ``values`` [L] that stands highest above the line from (0, first) to (L - 1, highest), at least 1."""
    rise = (values - values[0]) / (values.max() - values[0])
    return max(1, int((rise - torch.linspace(0, 1, len(values))).argmax()))


def normal_share(latents: Tensor) -> float:
    """Return the share of the dimensions of latents [N, D], N >= 3, that the Shapiro-Wilk test does not reject at 5 %; one without spread
    counts as rejected."""
    from scipy.stats import shapiro

    x = latents.double().numpy()
    spread = x.std(axis=0) > 0
    return float((shapiro(x[:, spread], axis=0).pvalue >= SIGNIFICANCE).sum() / len(spread)) if spread.any() else 0.0


def _normality_by_level(
    images: ImageData, prior: Prior, conditioning: Sequence[Conditioning], settings: DistillSettings, progress: Progress
) -> tuple[tuple[LevelNormality, ...], str]:
    large = [match for match in conditioning if images.counts[match.class_name] >= FEWEST]
    if not large:
        raise SettingsError(
            f"--level auto needs a class of at least {FEWEST} images.",
            found=f"{max(images.counts.values())} in the largest",
            do="give a number.",
        )
    classes = [large[int(place)] for place in torch.linspace(0, len(large) - 1, min(CLASSES, len(large)))]
    dimensions = torch.Size(prior.latent_shape).numel()
    chosen = torch.linspace(0, dimensions - 1, min(DIMENSIONS, dimensions)).long()
    shares = torch.zeros(len(classes), settings.steps)
    with progress.bar("measuring normality by level", len(classes)) as bar:
        for row, match in enumerate(classes):
            clean = prior.encode(next(images.batches(match.class_name, IMAGES)))
            levels = inversion_path(
                prior,
                clean,
                torch.full((len(clean),), match.conditioning_id),
                level=settings.steps - 1,
                steps=settings.steps,
                guidance_scale=settings.inversion_guidance,
                solver=settings.solver,
            )
            with NumericalError.naming(match.class_name):
                for level, latents in enumerate(chain([clean], levels)):
                    shares[row, level] = normal_share(latents.flatten(1)[:, chosen].cpu())
            bar.update(row + 1, note=match.class_name)
    calls = calls_of_prediction(settings.inversion_guidance)
    grid = prior.schedule.grid(settings.steps).tolist()
    means = shares.mean(dim=0).tolist()
    evidence = [
        LevelNormality(level, timestep, calls * level, share) for level, (timestep, share) in enumerate(zip(grid, means, strict=True))
    ]
    counts = [min(IMAGES, images.counts[match.class_name]) for match in classes]
    return tuple(evidence), f"{sum(counts)} images of {len(classes)} classes, {len(chosen)} of {dimensions} dimensions"
