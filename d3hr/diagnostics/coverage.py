"""How much of the real images a set reaches, whether its images are real-looking, and how different they are from one another.

Legend: N real points, K distilled points, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from d3hr.diagnostics.spaces import Array

NEIGHBOURS = 5
"""Neighbour whose distance is a point's radius, as in arXiv 2002.09797; a side of fewer points uses its farthest."""


@dataclass(frozen=True)
class Support:
    """How two clouds of points overlap; each figure is None where there are too few points for it.

    Attributes:
        precision: share of distilled points within the radius of a real one (arXiv 1904.06991).
        recall: share of real points within the radius of a distilled one (arXiv 1904.06991).
        density: real radii that a distilled point lies in, in units of the number of neighbours (arXiv 2002.09797); may exceed 1.
        coverage: share of real points whose radius holds a distilled one (arXiv 2002.09797).
    """

    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None


def support(real: Array, distilled: Array, neighbours: int = NEIGHBOURS) -> Support:
    """Return precision, recall, density and coverage of distilled points [K, D] against real points [N, D].

    A radius needs a second point on its side: with N = 1 all is None, with K = 1 recall is.
    """
    from sklearn.metrics import pairwise_distances

    if len(real) < 2 or len(distilled) == 0:
        return Support()
    apart = pairwise_distances(distilled, real)
    used, radii = _radii(real, neighbours)
    inside = apart <= radii
    recall = None
    if len(distilled) > 1:
        recall = float((apart <= _radii(distilled, neighbours)[1][:, None]).any(axis=0).mean())
    return Support(
        precision=float(inside.any(axis=1).mean()),
        recall=recall,
        density=float(inside.sum() / (used * len(distilled))),
        coverage=float(inside.any(axis=0).mean()),
    )


def mean_support(found: Iterable[Support]) -> Support:
    """Return the mean of each figure over those that have it."""
    rows = list(found)

    def mean(name: str) -> float | None:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        return float(np.mean(values)) if values else None

    return Support(*(mean(name) for name in ("precision", "recall", "density", "coverage")))


def diversity(points: Array) -> float | None:
    """Return the mean distance between two of the points [K, D]; None for fewer than two.

    Over a sample of real images it is what a random subset of any size has on average.
    """
    from scipy.spatial.distance import pdist

    return float(pdist(points.astype(np.float64)).mean()) if len(points) > 1 else None


def _radii(points: Array, neighbours: int) -> tuple[int, Array]:
    """Return which neighbour is used, and each point's distance to it, the point itself not counted."""
    from sklearn.neighbors import NearestNeighbors

    used = min(neighbours, len(points) - 1)
    apart, _ = NearestNeighbors(n_neighbors=used).fit(points).kneighbors()
    return used, apart[:, -1]
