"""The nearest real image of each distilled one, and whether it was copied.

Legend: N real points, K distilled points, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3hr.diagnostics.spaces import Array

COPY_THRESHOLD = 1 / 3
"""An image three times nearer to a real one than real ones usually are to each other counts as copied. In the many dimensions of an
image distances hardly vary, so that a new image comes nowhere near this; in a handful of dimensions it would by chance."""


@dataclass(frozen=True)
class Nearest:
    """What lies nearest to the distilled images of one class among its real ones.

    Attributes:
        rows: the nearest real image [K] of each distilled one, as a row of the real points.
        ratios: its distance [K] in units of the real images' median distance to their own nearest; None where that is unknown.
    """

    rows: Array
    ratios: Array | None


def nearest(real: Array, distilled: Array) -> Nearest:
    """Find the nearest of real points [N, D] for distilled points [K, D].

    Real images that occur twice are left out of the median, since they tell of the collection and not of its spread.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1).fit(real)
    apart, rows = search.kneighbors(distilled)
    if len(real) < 2:
        return Nearest(rows[:, 0], None)
    own = search.kneighbors()[0][:, 0]
    # Distances come from |a|^2 - 2ab + |b|^2, so equal images may seem a rounding error apart.
    own = own[own > 1e-5 * np.abs(real).max()]
    return Nearest(rows[:, 0], apart[:, 0] / np.median(own) if len(own) else None)


def share_copied(ratios: Array) -> float:
    """Return the share of ratios [K] below :data:`COPY_THRESHOLD`."""
    return float((ratios < COPY_THRESHOLD).mean())
