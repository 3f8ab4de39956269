"""Distribution matching: the Gaussian of a class's inverted latents, gathered from a stream of batches (D3HR, arXiv 2505.18399).

Dimensions are independent, as in D3HR, unless the Gaussian has a rank R. Then it also keeps the directions in which latents vary most,
as the loadings L [R, D] of a factor model whose residual variances psi leave the variance sigma_d^2 of every dimension as it is:

    Sigma = L^T L + diag(psi),    psi_d = sigma_d^2 - sum_r L_rd^2

Legend: N latents, D = C*h*w dimensions, R rank, r loadings held (at most 2R), K latents in a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassGaussian:
    """Mean and unbiased standard deviation of ``count`` latents in each dimension, and how the dimensions vary together.

    Attributes:
        mean: float64 [D].
        std: float64 [D], from squares divided by ``count - 1``; zero for fewer than two latents.
        count: number of latents seen.
        rank: directions of the covariance to keep, R; 0 keeps none, as D3HR.
        loadings: float64 [r, D], None at rank 0. Up to 2R rows while latents come; :meth:`truncate_rank` leaves R.
    """

    mean: Tensor
    std: Tensor
    count: int
    rank: int = 0
    loadings: Tensor | None = None

    @classmethod
    def empty(cls, dimensions: int, rank: int = 0) -> ClassGaussian:
        """Return the Gaussian of no latents in D dimensions, which will keep ``rank`` directions, or D if that is less."""
        zeros = torch.zeros(dimensions, dtype=torch.float64)
        rank = min(rank, dimensions)
        return cls(zeros, zeros, 0, rank, zeros.expand(0, dimensions) if rank else None)

    @property
    def residual_std(self) -> Tensor:
        """Standard deviation float64 [D] that the loadings leave to each dimension alone: the square root of psi."""
        if self.loadings is None:
            return self.std
        return (self.std.square() - self.loadings.square().sum(dim=0)).clamp(min=0).sqrt()

    @property
    def coordinate_std(self) -> Tensor:
        """Standard deviation float64 [D + r] of a latent's independent coordinates: the residual ones, then the lengths of the loadings."""
        return self.std if self.loadings is None else torch.cat([self.residual_std, torch.linalg.vector_norm(self.loadings, dim=1)])

    def update(self, batch: Tensor) -> ClassGaussian:
        """Return the Gaussian that has also seen ``batch`` [N, D], of any dtype and device."""
        if len(batch) == 0:
            return self
        x = batch.detach().cpu().double()  # in this order: Metal devices have no float64
        mean = x.mean(dim=0)
        centred, degrees = x - mean, max(len(x) - 1, 1)
        std = (centred.square().sum(dim=0) / degrees).sqrt()
        return self.merge(ClassGaussian(mean, std, len(x), self.rank, centred / math.sqrt(degrees) if self.rank else None))

    def merge(self, other: ClassGaussian) -> ClassGaussian:
        """Return the Gaussian of both sets of latents.

        Moments as Chan, Golub and LeVeque (1979, eq. 2.1). Loadings by sequential singular value decomposition (Levy and Lindenbaum
        2000): the covariance of both sets is that of the rows of both and of the gap between the means, cut to rank R when over 2R.
        """
        count = self.count + other.count
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        gap, gap_weight = other.mean - self.mean, self.count * other.count / count
        mean = self.mean + gap * (other.count / count)
        squares = self._squares() + other._squares() + gap.square() * gap_weight
        both = ClassGaussian(mean, (squares / (count - 1)).sqrt(), count, self.rank)
        if self.loadings is None or other.loadings is None:
            return both
        weighted = [(self.loadings, self.count - 1), (other.loadings, other.count - 1), (gap[None], gap_weight)]
        rows = torch.cat([part * math.sqrt(weight / (count - 1)) for part, weight in weighted])
        return replace(both, loadings=leading_directions(rows, self.rank) if len(rows) > 2 * self.rank else rows)

    def truncate_rank(self) -> ClassGaussian:
        """Return the same Gaussian with exactly R orthogonal loadings, the longest first; zeros where fewer than R directions vary."""
        return self if self.loadings is None else replace(self, loadings=leading_directions(self.loadings, self.rank))

    def detached_copy(self) -> ClassGaussian:
        """Return a copy that shares no memory: one whose tensors are rows of larger ones would be pickled with all of them."""
        loadings = None if self.loadings is None else self.loadings.clone()
        return replace(self, mean=self.mean.clone(), std=self.std.clone(), loadings=loadings)

    def from_standard_normal(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Return latents [K, D]: mu + T (sqrt(psi) e + L^T f), for standard-normal coordinates (e, f).

        Args:
            noise: coordinates [K, D + r], float64; they are overwritten.
            temperature: T, the factor on the distance from the mean.
        """
        if self.loadings is None:
            return noise.mul_(self.std * temperature).add_(self.mean)
        dimensions = len(self.mean)
        latents = noise[:, :dimensions].mul_(self.residual_std * temperature).add_(self.mean)
        return latents.addmm_(noise[:, dimensions:], self.loadings, alpha=temperature)

    def _squares(self) -> Tensor:
        return self.std.square() * max(self.count - 1, 0)


def leading_directions(rows: Tensor, rank: int) -> Tensor:
    """Return L [R, D], of orthogonal rows, with L^T L as near to that of ``rows`` [r, D] as rank R allows (Eckart and Young 1936).

    The longest row is first, and zeros follow where r < R. The largest component of each row is positive, as a direction has two signs,
    of which a library may return either.
    """
    _, lengths, directions = torch.linalg.svd(rows, full_matrices=False)
    leading = lengths[:rank, None] * directions[:rank]
    leading = leading * leading.gather(1, leading.abs().argmax(dim=1, keepdim=True)).sign()
    missing = rank - len(leading)
    return torch.cat([leading, leading.new_zeros(missing, rows.shape[1])]) if missing else leading
