"""Chooses representative rows of a matrix of features.

Legend: N images, F features, K images to choose.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Features = NDArray[np.float64]


def herding_order(features: Tensor, count: int) -> list[int]:
    """Return the rows that herding takes first, in its order (Welling 2009, "Herding dynamical weights to learn").

    The next row is the one whose addition brings the mean of the chosen rows nearest to the mean of all; none is taken twice. With rows
    centred on that mean and S the sum of the chosen, it is the x that minimises |S + x|^2. The first rows are the same for any count.

    Args:
        features: rows [N, F].
        count: how many to take, at most N.
    """
    rows = _centred(features)
    squares = np.einsum("nf,nf->n", rows, rows)
    total, chosen = np.zeros(rows.shape[1]), list[int]()
    for _ in range(count):
        lengths = squares + 2 * (rows @ total)
        lengths[chosen] = np.inf
        chosen.append(int(lengths.argmin()))
        total = total + rows[chosen[-1]]
    return chosen


def farthest_order(features: Tensor, count: int) -> list[int]:
    """Return the rows that greedy k-center takes first, in its order (Gonzalez 1985).

    The first row is the nearest to the mean of all; the next is the one farthest from all chosen ones. The radius of the chosen rows, as
    the largest distance of any row to them, is at most twice the best possible. The first rows are the same for any count.

    Args:
        features: rows [N, F].
        count: how many to take, at most N.
    """
    rows = _centred(features)
    chosen = [int(np.einsum("nf,nf->n", rows, rows).argmin())]
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < count:
        gaps = rows - rows[chosen[-1]]
        nearest = np.minimum(nearest, np.einsum("nf,nf->n", gaps, gaps))
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


def medoids(features: Tensor, centres: Features) -> list[int]:
    """Return a different row for each centre, such that the sum of squared distances is least: the nearest rows, where these differ.

    Args:
        features: rows [N, F].
        centres: points [K, F], K at most N.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    _, columns = linear_sum_assignment(cdist(centres, features.numpy().astype(np.float64), "sqeuclidean"))
    return [int(column) for column in columns]


def _centred(features: Tensor) -> Features:
    rows = features.numpy().astype(np.float64)
    return np.asarray(rows - rows.mean(axis=0))
