"""Describes a class by one Gaussian for each of its modes, which share a group's images by how many latents they stand for.

One Gaussian a class, as in D3HR, is a mixture of one mode. Where the latents of a class fall into several kinds, a single Gaussian also
gives weight to what lies between the kinds; its modes do not.

Legend: N latents, D = C*h*w dimensions, K images in a group.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from d3hr.distillation.matching import ClassGaussian


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
        """Return the same mixture, each mode with R loadings (:meth:`~d3hr.distillation.matching.ClassGaussian.principal`)."""
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
