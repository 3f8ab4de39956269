"""Describes a class of inverted latents by one Gaussian with independent dimensions, in a stream (D3HR, distribution matching).

Legend: N latents, D = C*h*w dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassGaussian:
    """Mean and unbiased standard deviation of ``count`` latents, per dimension.

    Attributes:
        mean: float64 [D].
        std: float64 [D], unbiased (divided by count - 1); zero for fewer than two latents.
        count: number of latents seen.
    """

    mean: Tensor
    std: Tensor
    count: int

    @classmethod
    def empty(cls, dimensions: int) -> ClassGaussian:
        """Return the Gaussian of no latents in D dimensions."""
        zeros = torch.zeros(dimensions, dtype=torch.float64)
        return cls(zeros, zeros, 0)

    def update(self, batch: Tensor) -> ClassGaussian:
        """Return the Gaussian that has also seen ``batch`` [N, D]."""
        if len(batch) == 0:
            return self
        x = batch.detach().to("cpu", torch.float64)
        mean = x.mean(dim=0)
        squares = (x - mean).square().sum(dim=0)
        return self.merge(ClassGaussian(mean, (squares / max(len(x) - 1, 1)).sqrt(), len(x)))

    def merge(self, other: ClassGaussian) -> ClassGaussian:
        """Return the Gaussian of both sets of latents (Chan, Golub, LeVeque 1979, eq. 2.1)."""
        count = self.count + other.count
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        squares = self._squares() + other._squares() + gap.square() * (self.count * other.count / count)
        return ClassGaussian(mean, (squares / (count - 1)).sqrt(), count)

    def _squares(self) -> Tensor:
        return self.std.square() * max(self.count - 1, 0)
