"""Chooses the level whose latents are closest to Gaussian for what it costs to reach.

Legend: N images, L levels, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from d3hr.data import ImageData
from d3hr.distillation.inversion import calls_of_prediction, predictions_of
from d3hr.distillation.latent_sample import FEWEST, LatentSample
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import SettingsError
from d3hr.prior.conditioning import Conditioning
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress

SIGNIFICANCE = 0.05
"""A dimension is rejected where a test's p-value is below."""
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
    settings' own level stays. The sample visits every level, also where inversion will take strides.

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
    """Return the share of the dimensions of latents [N, D], N >= 3, that the Shapiro-Wilk test does not reject at 5 %; one without spread
    counts as rejected."""
    return float((shapiro_pvalues(latents) >= SIGNIFICANCE).double().mean())


def _normality_by_level(
    images: ImageData, prior: Prior, conditioning: Sequence[Conditioning], settings: DistillSettings, progress: Progress
) -> tuple[tuple[LevelNormality, ...], str]:
    sample = LatentSample.of(images, prior, conditioning)
    if sample is None:
        raise SettingsError(
            f"--level auto needs a class of at least {FEWEST} images.",
            found=f"{max(images.counts.values())} in the largest",
            do="give a number.",
        )
    shares = torch.zeros(len(sample.classes), settings.steps)
    with progress.bar("measuring normality by level", len(sample.classes)) as bar:
        for row, match in enumerate(sample.classes):
            for level, latents in enumerate(sample.walk(match, prior, settings, settings.steps - 1)):
                shares[row, level] = normal_share(latents)
            bar.update(row + 1, note=match.class_name)
    calls = calls_of_prediction(settings.inversion_guidance)
    grid = prior.schedule.grid(settings.steps).tolist()
    means = shares.mean(dim=0).tolist()
    evidence = [
        LevelNormality(level, timestep, calls * predictions_of(level, settings.inversion_stride), share)
        for level, (timestep, share) in enumerate(zip(grid, means, strict=True))
    ]
    return tuple(evidence), str(sample)
