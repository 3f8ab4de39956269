"""How far class statistics from some of the images may be from those of all, which tells when enough have been seen.

n of a class's N images are drawn without replacement, so the squared standard error of a mean is (1 - n/N) sigma^2 / n (Cochran, Sampling
Techniques, 1977, eq. 2.20). That of the standard deviation is measured: a batch of b latents gives one estimate of the variance, and
the scatter of these over B batches, divided by B, is the error of their mean, whatever the latents' distribution (batch means).

Legend: N images of a class, n of them seen, D dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian


@dataclass(frozen=True)
class StandardError:
    """Standard errors of a class's statistics, as shares of sigma, root mean squares over the dimensions.

    Attributes:
        mean: that of the mean.
        std: that of the standard deviation.
    """

    mean: float
    std: float

    def within(self, tolerance: float) -> bool:
        """Return whether neither is above ``tolerance``."""
        return max(self.mean, self.std) <= tolerance


@dataclass(frozen=True)
class Estimate:
    """The Gaussian of a class from the latents seen so far.

    Attributes:
        gaussian: mean and standard deviation of what was seen.
        population: N, of which they are a random part.
        batches: full batches seen.
        variances: sum of their unbiased variances, float64 [D].
        squares: sum of the squares of their variances, float64 [D].
    """

    gaussian: ClassGaussian
    population: int
    batches: int
    variances: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, dimensions: int, population: int, rank: int = 0) -> Estimate:
        """Return the estimate from no latents in D dimensions, of which ``rank`` directions will be kept at most."""
        zeros = torch.zeros(dimensions, dtype=torch.float64)
        return cls(ClassGaussian.empty(dimensions, rank), population, 0, zeros, zeros)

    def update(self, batch: Tensor, *, full: bool = True) -> Estimate:
        """Return the estimate that has also seen ``batch`` [n, D]; only full batches, all of one size, tell of the error."""
        seen = ClassGaussian.empty(len(self.variances), self.gaussian.rank).update(batch)
        merged = replace(self, gaussian=self.gaussian.merge(seen))
        if not full or seen.count < 2:
            return merged
        variance = seen.std.square()
        return replace(merged, batches=self.batches + 1, variances=self.variances + variance, squares=self.squares + variance.square())

    @property
    def standard_error(self) -> StandardError:
        """How far the statistics may be from those of all N images; before two full batches, that of the spread is a Gaussian's."""
        n = self.gaussian.count
        if n < 2:
            return StandardError(math.inf, math.inf)
        unseen = max(0.0, 1 - n / self.population)
        if self.batches < 2:
            return StandardError(math.sqrt(unseen / n), math.sqrt(unseen / (2 * (n - 1))))
        scatter = (self.squares - self.variances.square() / self.batches).clamp(min=0) / (self.batches - 1)
        spread = self.gaussian.std
        # The error of sigma is that of sigma^2 over 2 sigma; a dimension without spread has none.
        share = torch.where(spread > 0, scatter / self.batches / (4 * spread.pow(4)), 0.0)
        return StandardError(math.sqrt(unseen / n), math.sqrt(unseen * float(share.mean())))


def images_needed(population: int, *, most: int | None, tolerance: float | None) -> int:
    """Return how many of a class's images settings ask for at least: ``most``, or as many as bring the mean's error to ``tolerance``.

    (1 - n/N) / n <= t^2 where n >= 1 / (t^2 + 1/N). For Gaussian latents the standard deviation's error is smaller than the mean's.
    """
    needed = population if tolerance is None else math.ceil(1 / (tolerance**2 + 1 / population) - 1e-9)
    return min(population, max(2, needed), population if most is None else most)
