"""Describes a class of inverted latents by one Gaussian, in a stream (D3HR, distribution matching).

Its dimensions are independent, as in D3HR, unless it has a rank: then the directions in which latents vary most are kept too, and its
covariance is

    Sigma = L^T L + diag(psi),    psi_d = sigma_d^2 - sum_r L_rd^2,

which leaves the variance sigma_d^2 of every dimension as it is (factor analysis; L are its loadings).

Legend: N latents, D = C*h*w dimensions, R rank, r loadings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassGaussian:
    """Mean and unbiased standard deviation of ``count`` latents, per dimension, and how the dimensions vary together.

    Attributes:
        mean: float64 [D].
        std: float64 [D], unbiased (divided by count - 1); zero for fewer than two latents.
        count: number of latents seen.
        rank: directions that are kept of the covariance, R; 0 is none, as in D3HR.
        loadings: float64 [r, D]; up to 2R while latents come (:meth:`principal` gives R), none for rank 0.
    """

    mean: Tensor
    std: Tensor
    count: int
    rank: int = 0
    loadings: Tensor | None = None

    @classmethod
    def empty(cls, dimensions: int, rank: int = 0) -> ClassGaussian:
        """Return the Gaussian of no latents in D dimensions, of which ``rank`` directions will be kept at most."""
        zeros = torch.zeros(dimensions, dtype=torch.float64)
        rank = min(rank, dimensions)
        return cls(zeros, zeros, 0, rank, zeros.expand(0, dimensions) if rank else None)

    @property
    def residual(self) -> Tensor:
        """What the standard deviation of each dimension is beside the loadings: the square root of psi, float64 [D]."""
        if self.loadings is None:
            return self.std
        return (self.std.square() - self.loadings.square().sum(dim=0)).clamp(min=0).sqrt()

    @property
    def coordinates(self) -> int:
        """Independent coordinates of a latent: D, and one for each loading."""
        return len(self.mean) + (0 if self.loadings is None else len(self.loadings))

    @property
    def spread(self) -> Tensor:
        """Standard deviations of a latent's independent coordinates (float64): the residuals, and the lengths of the loadings."""
        return self.std if self.loadings is None else torch.cat([self.residual, torch.linalg.vector_norm(self.loadings, dim=1)])

    def update(self, batch: Tensor) -> ClassGaussian:
        """Return the Gaussian that has also seen ``batch`` [N, D]."""
        if len(batch) == 0:
            return self
        x = batch.detach().to("cpu", torch.float64)
        mean = x.mean(dim=0)
        centred, degrees = x - mean, max(len(x) - 1, 1)
        std = (centred.square().sum(dim=0) / degrees).sqrt()
        return self.merge(ClassGaussian(mean, std, len(x), self.rank, centred / math.sqrt(degrees) if self.rank else None))

    def merge(self, other: ClassGaussian) -> ClassGaussian:
        """Return the Gaussian of both sets of latents (Chan, Golub, LeVeque 1979, eq. 2.1; loadings: Levy, Lindenbaum 2000)."""
        count = self.count + other.count
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        squares = self._squares() + other._squares() + gap.square() * (self.count * other.count / count)
        merged = ClassGaussian(mean, (squares / (count - 1)).sqrt(), count, self.rank)
        if self.loadings is None or other.loadings is None:
            return merged
        parts = [(self.loadings, self.count - 1), (other.loadings, other.count - 1), (gap[None], self.count * other.count / count)]
        rows = torch.cat([part * math.sqrt(weight / (count - 1)) for part, weight in parts])
        return replace(merged, loadings=leading(rows, self.rank) if len(rows) > 2 * self.rank else rows)

    def principal(self) -> ClassGaussian:
        """Return the same Gaussian with R loadings at right angles, the longest first; of fewer latents than R the last ones are zero."""
        return self if self.loadings is None else replace(self, loadings=leading(self.loadings, self.rank))

    def alone(self) -> ClassGaussian:
        """Return a copy whose tensors are not rows of larger ones, with which they would be pickled."""
        loadings = None if self.loadings is None else self.loadings.clone()
        return replace(self, mean=self.mean.clone(), std=self.std.clone(), loadings=loadings)

    def placed(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the latents [K, D] of standard-normal coordinates [K, D + r], ``temperature`` times as far from the mean.

        The coordinates are overwritten.
        """
        if self.loadings is None:
            return noise.mul_(self.std * temperature).add_(self.mean)
        dimensions = len(self.mean)
        latents = noise[:, :dimensions].mul_(self.residual * temperature).add_(self.mean)
        return latents.addmm_(noise[:, dimensions:], self.loadings, alpha=temperature)

    def _squares(self) -> Tensor:
        return self.std.square() * max(self.count - 1, 0)


def leading(rows: Tensor, rank: int) -> Tensor:
    """Return the R directions [R, D] in which ``rows`` [r, D] are longest, at right angles, each as long as they are in it.

    Of all matrices of R rows it is the nearest in L^T L (Eckart, Young 1936). Where there are fewer than R rows, zeros follow.
    """
    _, lengths, directions = torch.linalg.svd(rows, full_matrices=False)
    found = lengths[:rank, None] * directions[:rank]
    # A direction has two signs, of which a library may return either.
    signs = found.gather(1, found.abs().argmax(dim=1, keepdim=True)).sign()
    missing = rank - len(found)
    return torch.cat([found * signs, found.new_zeros(missing, rows.shape[1])]) if missing else found * signs
