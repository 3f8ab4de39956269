"""Rules that choose K of the N images of a class, by their features or by how difficult each is.

Rows that are equally good are taken in the order of their index. Confidence is that of a network in an image's own class; doubtful images
are those whose label is probably wrong, and the rules at the margin between classes, where such images gather, leave them out.

Legend: N images, F features, K images to choose, C classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d3hr.distillation.mixture import k_means_centres, nearest_centres
from d3hr.errors import DataError

LEFT_OUT = 0.03
"""Share of a class, of lowest confidence, that counts as doubtful where nothing else is known."""
_BLOCK_VALUES = 2**22
"""Distances that are compared at once: 16 MiB in float32."""
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


def centre(features: Tensor, k: int, seed: int) -> list[int]:
    """Return the rows [N, F] nearest to K centres of k-means, which depend on the seed: the :func:`medoids`, K at most N."""
    return medoids(features, k_means_centres(features, k, seed))


def facility_location(features: Tensor, k: int) -> list[int]:
    """Return K rows of [N, F], near one of which every row is; greedily, in the order of their gain.

    The greedy choice keeps at least 1 - 1/e of the largest sum over rows of the similarity to the nearest chosen row (Nemhauser, Wolsey and
    Fisher 1978); similarity is how much less the distance is than the largest of all. Takes 4 N^2 bytes. The first rows are the same for
    any K up to N.
    """
    rows = features.double() - features.double().mean(dim=0)
    parts = range(0, len(rows), max(1, _BLOCK_VALUES // len(rows)))
    size = parts.step
    distances = torch.cat([torch.cdist(rows[start : start + size], rows).float() for start in parts])
    nearest, chosen = distances.max().repeat(len(rows)), list[int]()
    for _ in range(k):
        gains = torch.cat([(nearest - distances[start : start + size]).clamp_(min=0).sum(dim=1) for start in parts])
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        nearest = torch.minimum(nearest, distances[chosen[-1]])
    return chosen


def easiest(confidence: Tensor, k: int) -> list[int]:
    """Return the K rows of highest confidence [N], the highest first."""
    return confidence.argsort(descending=True, stable=True)[:k].tolist()


def least_confident(confidence: Tensor, share: float = LEFT_OUT) -> Tensor:
    """Return which rows are the ``share`` (0 to 1, rounded down to whole images) of lowest confidence [N]: bool [N]."""
    mask = torch.zeros(len(confidence), dtype=torch.bool)
    mask[confidence.argsort(stable=True)[: int(share * len(confidence))]] = True
    return mask


def margin(confidence: Tensor, k: int, doubtful: Tensor | None = None) -> list[int]:
    """Return the K rows of lowest confidence [N] among those that are not doubtful, the lowest first.

    Args:
        confidence: of each row, [N].
        k: rows to choose.
        doubtful: which rows are, bool [N]; by default the :func:`least_confident` few percent.

    Raises:
        DataError: fewer than K rows are left.
    """
    trusted = undoubted(least_confident(confidence) if doubtful is None else doubtful, k)
    return trusted[confidence[trusted].argsort(stable=True)[:k]].tolist()


def half_centre_half_margin(features: Tensor, confidence: Tensor, k: int, doubtful: Tensor | None = None, *, seed: int) -> list[int]:
    """Return a typical and a difficult image of each of K/2 clusters of a class: after the idea of BPS (CVPR 2026).

    The images that are not doubtful are clustered by k-means. First come those nearest to the centres, then, of each cluster, of what is
    left the one of lowest confidence; for odd K the smallest cluster has none. Where a cluster has nothing left, the lowest of the class
    takes its place.

    Args:
        features: rows [N, F].
        confidence: of each row, [N].
        k: rows to choose.
        doubtful: which rows are, bool [N]; by default the :func:`least_confident` few percent.
        seed: of k-means.

    Raises:
        DataError: fewer than K rows are left.
    """
    trusted = undoubted(least_confident(confidence) if doubtful is None else doubtful, k)
    rows = features[trusted]
    centres = k_means_centres(rows, (k + 1) // 2, seed)
    typical = medoids(rows, centres)
    clusters = nearest_centres(rows, torch.from_numpy(centres))
    by_size = clusters.bincount(minlength=len(centres)).argsort(descending=True, stable=True)
    of_row = clusters.tolist()
    left = [row for row in confidence[trusted].argsort(stable=True).tolist() if row not in typical]
    difficult = [row for cluster in by_size[: k // 2].tolist() for row in [row for row in left if of_row[row] == cluster][:1]]
    spare = [row for row in left if row not in difficult]
    return trusted[torch.tensor(typical + difficult + spare[: k // 2 - len(difficult)])].tolist()


def interval(difficulty: Tensor, k: int) -> list[int]:
    """Return every (N/K)-th row in the order of difficulty [N], from the middle of each K-th part: after the idea of D2C."""
    middles = ((torch.arange(k) * 2 + 1) * len(difficulty)).div(2 * k, rounding_mode="floor")
    return difficulty.argsort(stable=True)[middles].tolist()


def separation(groups: Sequence[Sequence[int]], features: Tensor, own: Tensor, others: Tensor) -> list[int]:
    """Return the group whose images are nearest to the centre of their class and farthest from the others: after the idea of IMS3.

    It has the largest mean, over its images, of the distance to the nearest other centre less the distance to its own.

    Args:
        groups: candidate groups of rows of one class, such as the ends of several searches.
        features: rows of the class [N, F].
        own: mean of the class's features [F].
        others: means of the other classes' features [C-1, F]; with none, the images nearest to their own centre win.
    """
    rows = features.double()
    margins = -torch.linalg.vector_norm(rows - own.double(), dim=1)
    if len(others):
        margins += torch.cdist(rows, others.double(), compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    return list(groups[int(torch.stack([margins[list(group)].mean() for group in groups]).argmax())])


def undoubted(doubtful: Tensor, k: int) -> Tensor:
    """Return the rows that are not doubtful, bool [N], as ascending indices int64; fewer than K is a ``DataError``."""
    trusted = (~doubtful).nonzero().flatten()
    if len(trusted) < k:
        raise DataError(
            "Too few images of a class are left without the doubtful ones.",
            found=f"{len(trusted)} of {len(doubtful)}, for {k} to choose",
            hint="choose fewer images per class, leave fewer images out, or look at the labels: 'd3hr diagnose'.",
        )
    return trusted


def _centred(features: Tensor) -> Features:
    rows = features.numpy().astype(np.float64)
    return np.asarray(rows - rows.mean(axis=0))
