"""The Gaussians of the modes of a class, between which the images of a group are divided, and the clusters that define the modes.

One Gaussian per class, as in D3HR, is a mixture of one mode. Where the latents of a class form several clusters, a single Gaussian also
gives weight to what lies between them; a Gaussian per cluster does not.

Legend: N latents, D = C*h*w dimensions, F features, K images in a group or centres of clusters.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian

MAX_CLUSTERED = 2048
"""Largest number of latents of a class that are clustered to find its modes."""


@dataclass(frozen=True)
class ClassMixture:
    """The Gaussians of a class's modes, at least one; the weight of a mode is its share of the latents seen."""

    modes: tuple[ClassGaussian, ...]

    @classmethod
    def empty(cls, dimensions: int, modes: int, rank: int = 0) -> ClassMixture:
        """Return ``modes`` Gaussians of no latents in D dimensions, each of which will keep ``rank`` directions at most."""
        return cls((ClassGaussian.empty(dimensions, rank),) * modes)

    @property
    def pooled(self) -> ClassGaussian:
        """The one Gaussian of all latents of the class."""
        return functools.reduce(ClassGaussian.merge, self.modes)

    @property
    def counts(self) -> list[int]:
        """Latents seen of each mode."""
        return [mode.count for mode in self.modes]

    @property
    def count(self) -> int:
        """Latents seen of all modes."""
        return sum(self.counts)

    @property
    def dimensions(self) -> int:
        """Dimensions of a latent, D."""
        return len(self.modes[0].mean)

    @property
    def rank(self) -> int:
        """Directions that each mode keeps of its covariance, R."""
        return self.modes[0].rank

    def update(self, batch: Tensor, assignment: Tensor) -> ClassMixture:
        """Return the mixture that has also seen ``batch`` [N, D], whose latents belong to the modes ``assignment``, int64 [N]."""
        return ClassMixture(tuple(mode.update(batch[(assignment == index).to(batch.device)]) for index, mode in enumerate(self.modes)))

    def merge(self, other: ClassMixture) -> ClassMixture:
        """Return the mixture of both sets of latents, mode by mode."""
        return ClassMixture(tuple(mine.merge(theirs) for mine, theirs in zip(self.modes, other.modes, strict=True)))

    def truncate_rank(self) -> ClassMixture:
        """Return the same mixture, each mode with R loadings (:meth:`~d3hr.distillation.gaussian.ClassGaussian.truncate_rank`)."""
        return ClassMixture(tuple(map(ClassGaussian.truncate_rank, self.modes)))

    def detached_copy(self) -> ClassMixture:
        """Return a copy that shares no memory (:meth:`~d3hr.distillation.gaussian.ClassGaussian.detached_copy`)."""
        return ClassMixture(tuple(map(ClassGaussian.detached_copy, self.modes)))

    def top_modes(self, ipc: int) -> tuple[int, ...]:
        """Return one image for each of the K modes with the most latents (of equal ones the first), none for the others.

        The sum is below K where fewer modes have latents.
        """
        by_count = sorted(range(len(self.modes)), key=lambda index: -self.counts[index])
        top = {index for index in by_count[:ipc] if self.counts[index]}
        return tuple(int(index in top) for index in range(len(self.modes)))


def largest_remainders(weights: Sequence[int], total: int) -> tuple[int, ...]:
    """Return integers of sum ``total`` in proportion to ``weights``, by largest remainders (Hamilton); of equal remainders the first wins.

    At least one weight is positive.
    """
    quotas = [divmod(total * weight, sum(weights)) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: -quotas[index][1])
    rounded_up = set(by_remainder[: total - sum(quotient for quotient, _ in quotas)])
    return tuple(quotient + (index in rounded_up) for index, (quotient, _) in enumerate(quotas))


def clustering_subset(indices: Sequence[int]) -> Sequence[int]:
    """Return which images of a class are clustered to find its modes: all of ``indices``, or every n-th of more than MAX_CLUSTERED."""
    return indices[:: max(1, -(-len(indices) // MAX_CLUSTERED))]


def k_means_centres(features: Tensor, count: int, seed: int) -> NDArray[np.float64]:
    """Return ``count`` = K centres [K, F] of rows [N, F], K <= N, by k-means (Lloyd 1982; the best of 4 runs from k-means++ starts)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows that coincide leave centres over, on top of each other
        k_means = KMeans(count, n_init=4, random_state=seed % 2**32).fit(features.numpy().astype(np.float64))
    return np.asarray(k_means.cluster_centers_)


def nearest_centres(latents: Tensor, centres: Tensor) -> Tensor:
    """Return the index of the nearest of ``centres`` [K, F] to each of ``latents`` [N, F], int64 [N]; of equally near ones the first."""
    return torch.cdist(latents.cpu().double(), centres.cpu().double()).argmin(dim=1)
