"""How far class statistics from a random sample of the images may be from those of all, which decides when enough have been seen.

n of a class's N images are drawn without replacement, so the squared standard error of a mean is (1 - n/N) sigma^2 / n (Cochran,
Sampling Techniques, 1977, eq. 2.20). That of the standard deviation is measured, whatever the latents' distribution: each of B full
batches gives one estimate of the variance, whose scatter over the batches, divided by B, is the squared error of their mean (batch means).

Legend: N images of a class, n of them seen, D dimensions, B full batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian


@dataclass(frozen=True)
class StandardError:
    """Standard errors of a class's mean and std in units of sigma, each the root mean square over the dimensions."""

    mean: float
    std: float

    def within(self, tolerance: float) -> bool:
        """Return whether both are at most ``tolerance``."""
        return max(self.mean, self.std) <= tolerance


@dataclass(frozen=True)
class ClassEstimate:
    """The Gaussian of the latents seen of a class, a random sample of N (``population``), with what its standard error follows from.

    That is the number B of full batches seen, and the sums of their unbiased variances and of the squares of these, float64 [D].
    """

    gaussian: ClassGaussian
    population: int
    batches: int
    variances: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, dimensions: int, population: int, rank: int = 0) -> ClassEstimate:
        """Return the estimate from none of N latents in D dimensions, whose Gaussian will keep ``rank`` directions at most."""
        zeros = torch.zeros(dimensions, dtype=torch.float64)
        return cls(ClassGaussian.empty(dimensions, rank), population, 0, zeros, zeros)

    def update(self, batch: Tensor, *, full: bool = True) -> ClassEstimate:
        """Return the estimate that has also seen ``batch`` [n, D]; ``full`` batches, all of one size, enter the error of the std."""
        seen = ClassGaussian.empty(len(self.variances), self.gaussian.rank).update(batch)
        merged = replace(self, gaussian=self.gaussian.merge(seen))
        if not full or seen.count < 2:
            return merged
        variance = seen.std.square()
        return replace(merged, batches=self.batches + 1, variances=self.variances + variance, squares=self.squares + variance.square())

    @property
    def standard_error(self) -> StandardError:
        """How far the statistics may be from those of all N images; before two full batches, that of the std is a Gaussian's."""
        n = self.gaussian.count
        if n < 2:
            return StandardError(math.inf, math.inf)
        unseen = max(0.0, 1 - n / self.population)
        if self.batches < 2:
            return StandardError(math.sqrt(unseen / n), math.sqrt(unseen / (2 * (n - 1))))
        scatter = (self.squares - self.variances.square() / self.batches).clamp(min=0) / (self.batches - 1)
        std = self.gaussian.std
        # The relative error of sigma is that of sigma^2 over 2 sigma^2; a dimension without spread has none.
        relative_square = torch.where(std > 0, scatter / self.batches / (4 * std.pow(4)), 0.0)
        return StandardError(math.sqrt(unseen / n), math.sqrt(unseen * float(relative_square.mean())))


def images_needed(population: int, *, most: int | None, tolerance: float | None) -> int:
    """Return how many of a class's N images are seen at least: as many as bring the mean's error to ``tolerance`` t, up to ``most``.

    (1 - n/N) / n <= t^2, in units of sigma, where n >= 1 / (t^2 + 1/N). For Gaussian latents the standard deviation's error is smaller than
    the mean's.
    """
    needed = population if tolerance is None else math.ceil(1 / (tolerance**2 + 1 / population) - 1e-9)
    return min(population, max(2, needed), population if most is None else most)
