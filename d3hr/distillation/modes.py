"""Finds where the modes of a class lie: the k-means centres of its latents.

Legend: N latents, F features, K centres.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_LATENTS = 2048
"""Latents of a class among which its modes are looked for, at most."""


def thinned(places: Sequence[int]) -> Sequence[int]:
    """Return which images of a class are looked at to find its modes: all, or every n-th of more than :data:`MOST_LATENTS`."""
    return places[:: max(1, -(-len(places) // MOST_LATENTS))]


def k_means_centres(features: Tensor, count: int, seed: int) -> NDArray[np.float64]:
    """Return the centres [K, F] of k-means (Lloyd 1982; k-means++ start, the best of 4 runs).

    Args:
        features: rows [N, F].
        count: number of centres, at most N.
        seed: decides the starts.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows that coincide leave centres over, on top of each other
        found: Any = KMeans(count, n_init=4, random_state=seed % 2**32).fit(features.numpy().astype(np.float64))
    return np.asarray(found.cluster_centers_)


def nearest(latents: Tensor, centres: Tensor) -> Tensor:
    """Return which centre of [K, F] is the nearest to each latent [N, F], int64 [N]; of equal ones the first."""
    return torch.cdist(latents.double(), centres.double()).argmin(dim=1)
