"""The distance of a distilled set from the real images, and that of as many random real images from the others.

Legend: N real points, K distilled points, D features.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from d3hr.diagnostics.spaces import Array, mean_of_known
from d3hr.seeds import derive_seed

PROJECTIONS = 100
"""Directions of the sliced Wasserstein distance."""
COMPONENTS = 64
"""Principal components of the real images in which the Frechet distance is measured: a covariance of thousands of features cannot be
estimated from tens of images."""
MOST_POINTS, MOST_TRANSPORTED = 1000, 200
"""Points of a side, at most; fewer for Sinkhorn's iterations, whose cost grows with the square of their number."""
BLUR = 0.5
"""Entropic regularisation in units of the median squared distance. The larger it is, the fewer points the divergence needs (Genevay et
al., arXiv 1810.02733), and the nearer it comes to an MMD."""
_MAX_ITERATIONS, _TOLERANCE = 1000, 1e-6
_RIDGE = 1e-6

DISTANCES = ("mmd", "sliced_wasserstein", "sinkhorn", "frechet")


def mmd(x: Array, y: Array, gamma: float) -> float | None:
    """Return the unbiased estimate of the squared maximum mean discrepancy (Gretton et al., JMLR 2012, eq. 3) of x [N, D] and y [K, D].

    The kernel is exp(-gamma |a - b|^2). The estimate may fall below 0. None if a side has a single point.
    """
    from sklearn.metrics.pairwise import rbf_kernel

    if min(len(x), len(y)) < 2:
        return None

    def within(points: Array) -> float:
        n = len(points)
        return float((rbf_kernel(points, gamma=gamma).sum(dtype=np.float64) - n) / (n * (n - 1)))

    return within(x) + within(y) - 2 * float(rbf_kernel(x, y, gamma=gamma).mean(dtype=np.float64))


def median_squared_distance(points: Array) -> float:
    """Return the median of |a - b|^2 over pairs of points [N, D], or 1 if it is 0 or there is no pair."""
    from scipy.spatial.distance import pdist

    squares = pdist(thinned(points), "sqeuclidean")
    return float(np.median(squares)) or 1.0 if len(squares) else 1.0


def sliced_wasserstein(x: Array, y: Array, seed: int) -> float:
    """Return the sliced 2-Wasserstein distance of x [N, D] and y [K, D] (Bonneel et al., 2015), over 100 random directions."""
    import ot

    return float(ot.sliced_wasserstein_distance(x, y, n_projections=PROJECTIONS, seed=seed))


def sinkhorn(x: Array, y: Array, regularisation: float) -> float:
    """Return the Sinkhorn divergence of x [N, D] and y [K, D] with squared Euclidean cost (Feydy et al., arXiv 1810.08278, eq. 3).

    It is OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2, where OT is the optimum of the cost plus ``regularisation`` times the Kullback-Leibler
    divergence of the plan from the product of its marginals, taken from the dual potentials (eq. 8). It is never negative.
    """
    return _entropic_cost(x, y, regularisation) - (_entropic_cost(x, x, regularisation) + _entropic_cost(y, y, regularisation)) / 2


def _entropic_cost(x: Array, y: Array, regularisation: float) -> float:
    import ot

    costs = ot.dist(x.astype(np.float64), y.astype(np.float64))
    weights = [np.full(len(side), 1 / len(side)) for side in (x, y)]
    _, found = ot.bregman.sinkhorn_log(
        *weights, costs, regularisation, numItermax=_MAX_ITERATIONS, stopThr=_TOLERANCE, log=True, warn=False
    )
    # POT's potentials include the logarithms of the weights.
    return regularisation * sum(float(np.mean(found[name]) + np.log(len(side))) for name, side in (("log_u", x), ("log_v", y)))


def gaussian_distance(mean_x: Array, cov_x: Array, mean_y: Array, cov_y: Array) -> float:
    """Return the squared Frechet distance of two Gaussians, |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^1/2 C_y C_x^1/2)^1/2)."""
    import ot

    return float(ot.gaussian.bures_wasserstein_distance(mean_x, mean_y, cov_x, cov_y)) ** 2


def frechet(x: Array, y: Array) -> float | None:
    """Return the squared Frechet distance of x [N, D] and y [K, D], as the FID has it (arXiv 1706.08500), with shrunk covariances.

    Covariances are Ledoit and Wolf's, shrunk towards a ball, so that also K <= D points give regular ones. A millionth of x's mean variance
    is added to both, for a shrinkage of 0 such as two points get. None if a side has a single point.
    """
    from sklearn.covariance import LedoitWolf

    if min(len(x), len(y)) < 2:
        return None
    fits = [LedoitWolf().fit(side.astype(np.float64)) for side in (x, y)]
    ball = _RIDGE * np.trace(fits[0].covariance_) / x.shape[1] * np.eye(x.shape[1])
    return gaussian_distance(fits[0].location_, fits[0].covariance_ + ball, fits[1].location_, fits[1].covariance_ + ball)


def thinned(points: Array, most: int = MOST_POINTS) -> Array:
    """Return at most ``most`` of the points [N, D], evenly spread over their order."""
    return points if len(points) <= most else points[np.linspace(0, len(points) - 1, most).round().astype(int)]


@dataclass(frozen=True)
class Measures:
    """The four distances from real points [N, D], with bandwidth, regularisation and components computed from these points alone.

    What is compared, such as a set and its reference, is measured by one object, whose real points hold neither. The seed is that of the
    directions of projection.
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

        points = thinned(self.real)
        pca = PCA(min(COMPONENTS, len(points) - 1, points.shape[1]), svd_solver="full").fit(points.astype(np.float64))
        return pca.mean_, pca.components_

    def mmd(self, points: Array, real: Array | None = None) -> float | None:
        """Return :func:`mmd` of points [K, D] to the real ones, or to some of them, with the median heuristic, gamma = 1 / (2 median^2)."""
        return mmd(thinned(self.real if real is None else real), thinned(points), gamma=0.5 / self.spread)

    def of(self, points: Array) -> dict[str, float | None]:
        """Return each of :data:`DISTANCES` of points [K, D] from the real ones; None if there are too few points for it."""
        few, real = thinned(points), thinned(self.real)
        mean, components = self._components
        return {
            "mmd": self.mmd(points),
            "sliced_wasserstein": sliced_wasserstein(real, few, self.seed),
            "sinkhorn": sinkhorn(thinned(self.real, MOST_TRANSPORTED), thinned(points, MOST_TRANSPORTED), BLUR * self.spread),
            "frechet": frechet((real - mean) @ components.T, (few - mean) @ components.T),
        }


@dataclass(frozen=True)
class Distance:
    """Mean distance of the set to the real images that random draws leave over; mean and standard deviation of that of the drawn ones."""

    distilled: float | None = None
    reference_mean: float | None = None
    reference_std: float | None = None


def distances(real: Array, distilled: Array, draws: Iterable[tuple[Array, Array]], seed: int) -> dict[str, Distance]:
    """Return each of :data:`DISTANCES` of the set, points [K, D], and of random real images to the same real images.

    Each draw is as many random real points [K, D] and the others, from which both are measured, each time along other directions; without
    any draw, the distance to all real points [N, D] is measured.
    """
    ours, references = [], []
    for draw, (subset, rest) in enumerate(draws):
        measures = Measures(rest, _direction_seed(seed, draw))
        ours.append(measures.of(distilled))
        references.append(measures.of(subset))
    ours = ours or [Measures(real, _direction_seed(seed, 0)).of(distilled)]
    return {
        name: Distance(
            mean_of_known(row[name] for row in ours),
            mean_of_known(row[name] for row in references),
            _std(row[name] for row in references),
        )
        for name in DISTANCES
    }


def _direction_seed(seed: int, draw: int) -> int:
    """Return a seed that NumPy takes."""
    return derive_seed(seed, "projections", draw) % 2**32


def _std(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None
