"""How far a distilled set lies from the real images, beside how far as many real images lie from the others.

Legend: N real points, K distilled points, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from d3hr.diagnostics.spaces import Array

PROJECTIONS = 100
"""Directions of the sliced Wasserstein distance."""
COMPONENTS = 64
"""Principal components of the real images in which the Frechet distance is measured: a covariance of thousands of features cannot be
estimated from tens of images."""
MOST_POINTS, MOST_TRANSPORTED = 1000, 200
"""Points of a side at most; for Sinkhorn's iterations, whose cost grows with the square, fewer."""
BLUR = 0.5
"""Entropic regularisation in units of the median squared distance. The larger it is, the fewer points the divergence needs (Genevay et
al., arXiv 1810.02733), and the nearer it comes to an MMD."""
_MAX_ITERATIONS, _TOLERANCE = 1000, 1e-6
_RIDGE = 1e-6

DISTANCES = ("mmd", "sliced_wasserstein", "sinkhorn", "frechet")


def mmd(x: Array, y: Array, gamma: float) -> float | None:
    """Return the unbiased estimate of the squared maximum mean discrepancy (Gretton et al., JMLR 2012, eq. 3) of x [N, D] and y [K, D].

    The kernel is exp(-gamma |a - b|^2). The estimate may fall below 0. None where a side has a single point.
    """
    from sklearn.metrics.pairwise import rbf_kernel

    if min(len(x), len(y)) < 2:
        return None

    def within(points: Array) -> float:
        n = len(points)
        return float((rbf_kernel(points, gamma=gamma).sum(dtype=np.float64) - n) / (n * (n - 1)))

    return within(x) + within(y) - 2 * float(rbf_kernel(x, y, gamma=gamma).mean(dtype=np.float64))


def median_squared_distance(points: Array) -> float:
    """Return the median of |a - b|^2 over pairs of points [N, D], or 1 where it is 0 or there is no pair."""
    from scipy.spatial.distance import pdist

    found = pdist(thinned(points, MOST_POINTS), "sqeuclidean")
    return float(np.median(found)) or 1.0 if len(found) else 1.0


def sliced_wasserstein(x: Array, y: Array, seed: int) -> float:
    """Return the sliced 2-Wasserstein distance of x [N, D] and y [K, D] (Bonneel et al., 2015), over 100 random directions."""
    import ot

    return float(ot.sliced_wasserstein_distance(x, y, n_projections=PROJECTIONS, seed=seed))


def sinkhorn(x: Array, y: Array, regularisation: float) -> float:
    """Return the Sinkhorn divergence of x [N, D] and y [K, D] with squared Euclidean cost (Feydy et al., arXiv 1810.08278)."""
    import ot

    found = ot.bregman.empirical_sinkhorn_divergence(
        x.astype(np.float64), y.astype(np.float64), regularisation, numIterMax=_MAX_ITERATIONS, stopThr=_TOLERANCE, warn=False
    )
    return float(found)


def gaussian_distance(mean_x: Array, cov_x: Array, mean_y: Array, cov_y: Array) -> float:
    """Return the squared Frechet distance of two Gaussians, |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^1/2 C_y C_x^1/2)^1/2)."""
    import ot

    return float(ot.gaussian.bures_wasserstein_distance(mean_x, mean_y, cov_x, cov_y)) ** 2


def frechet(x: Array, y: Array) -> float | None:
    """Return the squared Frechet distance of x [N, D] and y [K, D], as the FID has it (arXiv 1706.08500), with shrunk covariances.

    Covariances are Ledoit and Wolf's, shrunk towards a ball, so that also K <= D points give regular ones. A millionth of x's mean variance
    is added to both, for a shrinkage of 0 such as two points get. None where a side has a single point.
    """
    from sklearn.covariance import LedoitWolf

    if min(len(x), len(y)) < 2:
        return None
    fits = [LedoitWolf().fit(side.astype(np.float64)) for side in (x, y)]
    ball = _RIDGE * np.trace(fits[0].covariance_) / x.shape[1] * np.eye(x.shape[1])
    return gaussian_distance(fits[0].location_, fits[0].covariance_ + ball, fits[1].location_, fits[1].covariance_ + ball)


def thinned(points: Array, most: int) -> Array:
    """Return at most ``most`` of the points [N, D], evenly spread over their order."""
    return points if len(points) <= most else points[np.linspace(0, len(points) - 1, most).round().astype(int)]


@dataclass(frozen=True)
class Measures:
    """The four distances with everything that real images decide: bandwidth, regularisation and components.

    So the set and its reference are measured with one ruler.

    Attributes:
        real: real points [N, D].
        seed: seed of the directions of projection.
    """

    real: Array
    seed: int

    @cached_property
    def spread(self) -> float:
        """Median squared distance between real points."""
        return median_squared_distance(self.real)

    @cached_property
    def _components(self) -> tuple[Array, Array]:
        from sklearn.decomposition import PCA

        points = thinned(self.real, MOST_POINTS)
        pca = PCA(min(COMPONENTS, len(points) - 1, points.shape[1]), svd_solver="full").fit(points.astype(np.float64))
        return pca.mean_, pca.components_

    def mmd(self, x: Array, y: Array) -> float | None:
        """Return :func:`mmd` with the median heuristic, gamma = 1 / (2 median^2)."""
        return mmd(thinned(x, MOST_POINTS), thinned(y, MOST_POINTS), gamma=0.5 / self.spread)

    def between(self, x: Array, y: Array) -> dict[str, float | None]:
        """Return each of :data:`DISTANCES` between x [N, D] and y [K, D]; None where there are too few points for it."""
        few_x, few_y = thinned(x, MOST_POINTS), thinned(y, MOST_POINTS)
        mean, components = self._components
        return {
            "mmd": self.mmd(x, y),
            "sliced_wasserstein": sliced_wasserstein(few_x, few_y, self.seed),
            "sinkhorn": sinkhorn(thinned(x, MOST_TRANSPORTED), thinned(y, MOST_TRANSPORTED), BLUR * self.spread),
            "frechet": frechet((few_x - mean) @ components.T, (few_y - mean) @ components.T),
        }


@dataclass(frozen=True)
class Distance:
    """A distance of the distilled set, beside that of random real images of the same number.

    Attributes:
        distilled: mean distance of the set to the real images that a draw left over.
        reference_mean: mean distance of the drawn real images to the same.
        reference_std: its standard deviation over the draws.
    """

    distilled: float | None = None
    reference_mean: float | None = None
    reference_std: float | None = None


def distances(measures: Measures, distilled: Array, draws: Iterable[tuple[Array, Array]]) -> dict[str, Distance]:
    """Measure the set and its references against the same real images.

    Args:
        measures: fitted on the real images.
        distilled: points [K, D] of the set.
        draws: pairs of as many real points [K, D] and the rest; without any, the set is measured against all real images.
    """
    ours: list[Mapping[str, float | None]] = []
    references: list[Mapping[str, float | None]] = []
    for subset, rest in draws:
        ours.append(measures.between(rest, distilled))
        references.append(measures.between(rest, subset))
    if not ours:
        ours.append(measures.between(measures.real, distilled))
    return {name: Distance(_mean(ours, name), _mean(references, name), _std(references, name)) for name in DISTANCES}


def _found(rows: Iterable[Mapping[str, float | None]], name: str) -> list[float]:
    return [value for row in rows if (value := row[name]) is not None]


def _mean(rows: Iterable[Mapping[str, float | None]], name: str) -> float | None:
    found = _found(rows, name)
    return float(np.mean(found)) if found else None


def _std(rows: Iterable[Mapping[str, float | None]], name: str) -> float | None:
    found = _found(rows, name)
    return float(np.std(found, ddof=1)) if len(found) > 1 else None
