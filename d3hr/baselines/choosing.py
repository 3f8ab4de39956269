"""Which images of a class to keep, as positions: pure functions of their features.

Legend: N images of a class, F features, K chosen images.
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_choice(count: int, k: int, generator: torch.Generator) -> Tensor:
    """Return K of ``count`` positions, int64 [K], without replacement; a larger K contains the smaller."""
    return torch.randperm(count, generator=generator)[:k]


def herding(features: Tensor, k: int) -> Tensor:
    """Return K positions whose mean follows the class mean: each next image brings the mean of the chosen ones nearest to it.

    Welling, "Herding dynamical weights to learn" (2009), in the greedy form of iCaRL (arXiv 1611.07725, Algorithm 4), without replacement.
    A larger K contains the smaller.

    Args:
        features: [N, F], N >= K.
        k: how many, K.
    """
    x = features.double()
    mean, total = x.mean(dim=0), torch.zeros(x.shape[1], dtype=torch.float64)
    chosen: list[int] = []
    for size in range(1, k + 1):
        distance = ((total + x) / size - mean).square().sum(dim=1)
        distance[chosen] = torch.inf
        chosen.append(int(distance.argmin()))
        total += x[chosen[-1]]
    return torch.tensor(chosen)


def k_center(features: Tensor, k: int) -> Tensor:
    """Return K positions of which every image is near one: the image nearest to the class mean, then always the farthest from those.

    Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985): within twice the best radius. A larger K contains the
    smaller.

    Args:
        features: [N, F], N >= K.
        k: how many, K.
    """
    x = features.double()
    chosen = [int((x - x.mean(dim=0)).square().sum(dim=1).argmin())]
    nearest = (x - x[chosen[0]]).square().sum(dim=1)
    while len(chosen) < k:
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(dim=1))
    return torch.tensor(chosen)


def k_means_medoids(features: Tensor, k: int, seed: int) -> Tensor:
    """Return K positions, one for each of K clusters: the image nearest to the cluster's centre, none twice.

    Args:
        features: [N, F], N >= K.
        k: how many, K.
        seed: seed of the first centres.
    """
    centres = k_means_centres(features, k, seed).double()
    distances = torch.cdist(centres, features.double())
    chosen: list[int] = []
    for row in distances:
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    return torch.tensor(chosen)


def k_means_centres(features: Tensor, k: int, seed: int) -> Tensor:
    """Return the centres [K, F] of K clusters of features [N, F], N >= K; scikit-learn's KMeans, best of four starts."""
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=4, random_state=seed % 2**32).fit(features.double().numpy())
    return torch.from_numpy(found.cluster_centers_).to(features.dtype)
