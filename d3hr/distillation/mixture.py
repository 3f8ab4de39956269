"""Describes a class by one Gaussian for each of its modes, which share a group's images by how many latents they stand for.

One Gaussian a class, as in D3HR, is a mixture of one mode. Where the latents of a class fall into several kinds, a single Gaussian also
gives weight to what lies between the kinds; its modes do not.

Legend: N latents, D = C*h*w dimensions, K images in a group.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian


@dataclass(frozen=True)
class ClassMixture:
    """The Gaussians of a class's modes.

    Attributes:
        modes: at least one; a mode's weight is its share of the latents seen.
    """

    modes: tuple[ClassGaussian, ...]

    @classmethod
    def empty(cls, dimensions: int, modes: int, rank: int = 0) -> ClassMixture:
        """Return so many modes of no latents in D dimensions, of each of which ``rank`` directions will be kept at most."""
        return cls((ClassGaussian.empty(dimensions, rank),) * modes)

    @property
    def whole(self) -> ClassGaussian:
        """The one Gaussian of all latents of the class."""
        return functools.reduce(ClassGaussian.merge, self.modes)

    @property
    def count(self) -> int:
        """Number of latents seen."""
        return sum(mode.count for mode in self.modes)

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.modes[0].mean)

    @property
    def rank(self) -> int:
        """R."""
        return self.modes[0].rank

    def update(self, batch: Tensor, which: Tensor) -> ClassMixture:
        """Return the mixture that has also seen ``batch`` [N, D], whose latents belong to the modes ``which`` [N]."""
        return ClassMixture(tuple(mode.update(batch[(which == index).to(batch.device)]) for index, mode in enumerate(self.modes)))

    def merge(self, other: ClassMixture) -> ClassMixture:
        """Return the mixture of both sets of latents, mode by mode."""
        return ClassMixture(tuple(mine.merge(theirs) for mine, theirs in zip(self.modes, other.modes, strict=True)))

    def principal(self) -> ClassMixture:
        """Return the same mixture, each mode with R loadings (:meth:`~d3hr.distillation.gaussian.ClassGaussian.principal`)."""
        return ClassMixture(tuple(mode.principal() for mode in self.modes))

    def shares(self, ipc: int) -> tuple[int, ...]:
        """Return how many of K images each mode gets: in proportion to its weight, by largest remainders; of equal ones the first."""
        return shares([mode.count for mode in self.modes], ipc)

    def heaviest(self, ipc: int) -> tuple[int, ...]:
        """Return one image for each of the K modes of most latents, of equal ones the first, and none for the others.

        Fewer than K where fewer modes have latents.
        """
        counts = [mode.count for mode in self.modes]
        given = {index for index in sorted(range(len(counts)), key=lambda index: -counts[index])[:ipc] if counts[index]}
        return tuple(int(index in given) for index in range(len(counts)))


def shares(weights: Sequence[int], total: int) -> tuple[int, ...]:
    """Return whole numbers of sum ``total`` in proportion to ``weights``, by largest remainders (Hamilton); of equal ones the first."""
    everything = sum(weights)
    whole = [total * weight // everything for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: -(total * weights[index] % everything))
    given = set(by_remainder[: total - sum(whole)])
    return tuple(count + (index in given) for index, count in enumerate(whole))


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
