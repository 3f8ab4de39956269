"""How Gaussian the latents of a class are at several levels, by three univariate tests and a multivariate one.

The method describes a class by one Gaussian at one level. If the latents are not Gaussian there, draws from it are not like them.

Legend: N images, D dimensions, d dimensions of a group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

from d3hr.diagnostics.spaces import Array
from d3hr.distillation.levels import SIGNIFICANCE, LatentSample, shapiro_pvalues
from d3hr.distillation.settings import DistillSettings
from d3hr.execution.base import SERIAL, Execution
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed, generator_for

GROUPS, GROUP_DIMENSIONS = 16, 4
"""Random groups of dimensions for the multivariate test. A dense random projection would look Gaussian whatever the data are, since it adds
up hundreds of dimensions; a projection on a few coordinates does not."""
NULL_DRAWS = 9999
"""Gaussian samples that give the Anderson-Darling statistic its p-value."""


@dataclass(frozen=True)
class LevelShares:
    """Shares, 0 to 1, of the dimensions of all classes that a test does not reject at 5 %: 0.95 for Gaussian latents.

    The tests are Shapiro-Wilk, D'Agostino and Pearson's K^2, and Anderson-Darling with estimated mean and variance; ``_bh`` is after
    Benjamini and Hochberg's correction over the dimensions of a class, about 1 for Gaussian latents. The multivariate test is
    Henze-Zirkler, over random groups of dimensions. Level 0 is the clean latents.
    """

    level: int
    timestep: int | float | None = None
    shapiro: float | None = None
    dagostino: float | None = None
    anderson: float | None = None
    shapiro_bh: float | None = None
    dagostino_bh: float | None = None
    anderson_bh: float | None = None
    multivariate: float | None = None


@dataclass(frozen=True)
class Normality:
    """Normality of a sample of latents (described in words), averaged over classes: the shares at each level.

    ``classes`` has the Shapiro-Wilk shares of each class at the same levels.
    """

    sample: str = ""
    levels: tuple[LevelShares, ...] = ()
    classes: dict[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class LevelTests:
    """Inverts the sample of a class and tests its latents at some levels, as work whose tasks are the classes."""

    sample: LatentSample
    prior: Prior
    settings: DistillSettings
    levels: Sequence[int]
    seed: int

    def open(self) -> Callable[[Conditioning], list[dict[str, float]]]:
        """Return the function that gives the shares of each level."""
        return self._shares

    def _shares(self, match: Conditioning) -> list[dict[str, float]]:
        latents_of_levels = enumerate(self.sample.latents_by_level(match, self.prior, self.settings, self.levels[-1]))
        generator = generator_for(self.seed, "henze-zirkler", match.class_name)
        groups = [torch.randperm(len(self.sample.indices), generator=generator)[:GROUP_DIMENSIONS] for _ in range(GROUPS)]
        return [shares(latents, groups, self.seed) for level, latents in latents_of_levels if level in self.levels]


def normality_by_level(
    sample: LatentSample,
    prior: Prior,
    settings: DistillSettings,
    levels: int,
    seed: int = 0,
    execution: Execution = SERIAL,
    progress: Progress = SILENT,
) -> Normality:
    """Test a sample of latents, inverted by ``settings``, at so many :func:`levels <spread_levels>`.

    The seed is that of the groups of dimensions and of the Anderson-Darling test's null distribution.
    """
    chosen = spread_levels(settings, levels)
    found: dict[int, list[dict[str, float]]] = {}
    with progress.bar("testing normality by level", len(sample.classes)) as bar:
        for index, of_class in execution.run(LevelTests(sample, prior, settings, chosen, seed), sample.classes):
            found[index] = of_class
            bar.update(len(found), note=sample.classes[index].class_name)
    by_class = {match.class_name: found[index] for index, match in enumerate(sample.classes)}
    grid = [point.t for point in prior.schedule.points(settings.steps)]
    rows = []
    for level, at_level in zip(chosen, zip(*by_class.values(), strict=True), strict=True):
        means = {name: float(np.mean([of_class[name] for of_class in at_level])) for name in at_level[0]}
        rows.append(LevelShares(level=level, timestep=grid[level], **means))
    return Normality(str(sample), tuple(rows), {name: tuple(each["shapiro"] for each in of) for name, of in by_class.items()})


def spread_levels(settings: DistillSettings, count: int) -> list[int]:
    """Return at most ``count`` levels evenly spread over the grid, of which the nearest to the statistics level is replaced by it."""
    levels = sorted({round(float(level)) for level in np.linspace(0, settings.steps - 1, count)})
    if len(levels) > 1:
        nearest = min(range(1, len(levels)), key=lambda place: abs(levels[place] - settings.statistics_level))
        levels[nearest] = settings.statistics_level
    return levels


def shares(latents: Tensor, groups: list[Tensor], seed: int = 0) -> dict[str, float]:
    """Return the shares of dimensions, and of groups of them, of latents [N, D] that each test does not reject at 5 %.

    N is at least 8. A dimension without spread counts as rejected.
    """
    from scipy.stats import normaltest

    x = latents.double().numpy()
    pvalues = {
        "shapiro": shapiro_pvalues(latents).numpy(),
        "dagostino": _where_spread(x, lambda part: normaltest(part, axis=0).pvalue),
        "anderson": _where_spread(x, lambda part: anderson_pvalues(part, seed)),
    }
    pvalues |= {f"{name}_bh": corrected(values) for name, values in pvalues.items()}
    pvalues["multivariate"] = np.array([henze_zirkler(x[:, group.numpy()]) for group in groups])
    return {name: float((values >= SIGNIFICANCE).mean()) for name, values in pvalues.items()}


def corrected(pvalues: Array) -> Array:
    """Return p-values corrected for their number (Benjamini and Hochberg, 1995): below 5 %, one in twenty is false at most."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(pvalues))


def anderson_pvalues(x: Array, seed: int = 0) -> Array:
    """Return the p-value [D] of the Anderson-Darling test for each dimension of x [N, D].

    With estimated mean and variance the distribution of the statistic under normality depends on N alone, so one Monte Carlo sample of it
    serves all dimensions, classes and levels: p is the share of 10,000 samples (the data among them) whose statistic is as large. The
    p-values of ``scipy.stats.anderson`` are interpolated between 1 % and 15 %, too coarse to be corrected for hundreds of dimensions;
    ``scipy.stats.monte_carlo_test`` would draw the sample anew in every call.
    """
    larger = NULL_DRAWS - np.searchsorted(_anderson_null(len(x), seed), anderson_statistic(x), side="left")
    return np.asarray((1 + larger) / (1 + NULL_DRAWS))


def anderson_statistic(x: Array) -> Array:
    """Return the Anderson-Darling statistic [D] of x [N, D] against a Gaussian of its own mean and variance, all dimensions at once."""
    from scipy.stats import norm

    n = len(x)
    z = np.sort((x - x.mean(axis=0)) / x.std(axis=0, ddof=1), axis=0)
    odd = 2 * np.arange(1, n + 1)[:, None] - 1
    return np.asarray(-n - (odd * (norm.logcdf(z) + norm.logsf(z[::-1]))).sum(axis=0) / n)


def henze_zirkler(x: Array) -> float:
    """Return the p-value of the Henze-Zirkler test of multivariate normality for x [N, d]; 0 where the covariance is singular.

    With S the covariance (divisor N), D_jk = (x_j - x_k)' S^-1 (x_j - x_k), D_j = (x_j - mean)' S^-1 (x_j - mean) and
    b = ((2 d + 1) N / 4)^(1 / (d + 4)) / sqrt(2), the statistic is
    HZ = 1/N sum_jk exp(-b^2 D_jk / 2) - 2 (1 + b^2)^(-d/2) sum_j exp(-b^2 D_j / (2 (1 + b^2))) + N (1 + 2 b^2)^(-d/2).
    Its p-value is that of a log-normal of the statistic's mean and variance under normality (Henze and Zirkler, 1990, theorem 3.1).
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import lognorm

    n, d = x.shape
    covariance = np.cov(x, rowvar=False, ddof=0).reshape(d, d)
    if np.linalg.matrix_rank(covariance) < d:
        return 0.0
    white = (x - x.mean(axis=0)) @ np.linalg.cholesky(np.linalg.inv(covariance))
    b2 = 0.5 * ((2 * d + 1) * n / 4) ** (2 / (d + 4))
    pairs = 2 * np.exp(-b2 / 2 * pdist(white, "sqeuclidean")).sum() + n
    own = np.exp(-b2 / (2 * (1 + b2)) * (white**2).sum(axis=1)).sum()
    statistic = pairs / n - 2 * (1 + b2) ** (-d / 2) * own + n * (1 + 2 * b2) ** (-d / 2)
    a, w = 1 + 2 * b2, (1 + b2) * (1 + 3 * b2)
    mean = 1 - a ** (-d / 2) * (1 + d * b2 / a + d * (d + 2) * b2**2 / (2 * a**2))
    variance = (
        2 * (1 + 4 * b2) ** (-d / 2)
        + 2 * a**-d * (1 + 2 * d * b2**2 / a**2 + 3 * d * (d + 2) * b2**4 / (4 * a**4))
        - 4 * w ** (-d / 2) * (1 + 3 * d * b2**2 / (2 * w) + d * (d + 2) * b2**4 / (2 * w**2))
    )
    shape = np.log1p(variance / mean**2) ** 0.5
    return float(lognorm.sf(statistic, shape, scale=mean / (1 + variance / mean**2) ** 0.5))


def _where_spread(x: Array, pvalues: Callable[[Array], Array]) -> Array:
    """Return the p-values [D] of the dimensions of x [N, D] that have a spread, and 0 for the others."""
    spread = x.std(axis=0) > 0
    values = np.zeros(x.shape[1])
    if spread.any():
        values[spread] = pvalues(x[:, spread])
    return values


@cache
def _anderson_null(n: int, seed: int) -> Array:
    """Return the sorted statistics of Gaussian samples of ``n``."""
    draws = np.random.default_rng(derive_seed(seed, "anderson-darling")).normal(size=(n, NULL_DRAWS))
    return np.sort(anderson_statistic(draws))
