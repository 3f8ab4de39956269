"""The noise schedules of priors: how much signal and noise latents hold at each point, and how a step leads from one point to another.

At a point, latents are z = alpha x + sigma e, of clean latents x and noise e ~ N(0, I). Schedules differ in what alpha and sigma are:
variance preserving (alpha^2 + sigma^2 = 1), flow matching (alpha = 1 - sigma) or variance exploding (alpha = 1). One formula moves between
two points in both directions. From the network follows a slope q = e - kappa x; with c = alpha + kappa sigma,

    z / c = x + s q,  s = sigma / c,

so that z / c moves along a straight line over s where q is constant: z_to = c_to (z_from - sigma_from q) / c_from + sigma_to q. A slope of
noise (kappa = 0) makes it DDIM's step (arXiv 2010.02502, eq. 12 with sigma = 0), one of velocity (kappa = 1, c = 1 for flow matching)
Euler's step z_to = z_from + (sigma_to - sigma_from) q, which is defined at pure noise too.

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from d3hr.errors import PriorError, SettingsError


class Point(NamedTuple):
    """A point of a schedule."""

    t: float
    """What the network is given as its time, such as the training timestep of DDPM."""
    alpha: float
    """Factor of the clean latents, 0 to 1."""
    sigma: float
    """Factor of the noise."""


class Prediction(NamedTuple):
    """What a network's output says that latents [N, C, h, w] are made of: z = alpha clean + sigma noise."""

    clean: Tensor
    noise: Tensor


class Times(NamedTuple):
    """Random points of a training step, each float or int [N]."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor


class Schedule(ABC):
    """What all schedules have in common. Levels are the points of a grid, in the order of their noise; clean latents are at level 0."""

    kappa: ClassVar[float] = 0.0
    """Share of the clean latents in the slope: 0 for a slope of noise, 1 for one of velocity."""

    @property
    def noise_scale(self) -> float:
        """Standard deviation of the latents from which a sample is drawn at the top of the grid."""
        return 1.0

    @property
    @abstractmethod
    def identity(self) -> tuple[tuple[Any, ...], list[float]]:
        """What makes the schedule what it is, for a fingerprint: settings, and a table of numbers."""

    @abstractmethod
    def points(self, steps: int) -> list[Point]:
        """Return the points of the levels of a grid of so many steps, of ascending noise; a number out of range is a ``SettingsError``."""

    @abstractmethod
    def slope(self, output: Tensor, latents: Tensor, point: Point) -> Tensor:
        """Return the slope q [N, C, h, w] that follows from a network's ``output`` for ``latents`` (same shapes) at a point."""

    def network_input(self, latents: Tensor, point: Point) -> Tensor:
        """Return what the network is given for ``latents`` [N, C, h, w] at a point: most take them as they are."""
        return latents

    def path(self, level: int, steps: int) -> list[Point]:
        """Return the points of levels 0 to ``level``.

        A level that is not on the grid, or whose slope cannot be followed since no signal is left, is a ``SettingsError``.
        """
        points = self.points(steps)
        if not 0 <= level < steps:
            raise SettingsError(
                "The level is not on the grid.", found=f"level {level} of {steps} steps", hint=f"use a level from 0 to {steps - 1}."
            )
        if self._scale(points[level]) <= 0:
            raise SettingsError("No signal is left at this level.", found=f"level {level} of {steps} steps", hint="use a lower level.")
        return points[: level + 1]

    def step(self, latents: Tensor, slope: Tensor, start: Point, end: Point) -> Tensor:
        """Move latents [N, C, h, w] from one point to another along a slope (same shape)."""
        clean = (latents - start.sigma * slope) / self._scale(start)
        return torch.as_tensor(self._scale(end) * clean + end.sigma * slope)

    def split(self, latents: Tensor, slope: Tensor, point: Point) -> Prediction:
        """Return clean latents and noise [N, C, h, w] that a slope says ``latents`` at a point are made of."""
        clean = (latents - point.sigma * slope) / self._scale(point)
        return Prediction(clean, slope + self.kappa * clean if self.kappa else slope)

    def true_slope(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Return the slope of latents that are known to be made of ``clean`` and ``noise`` (any shape)."""
        return noise - self.kappa * clean if self.kappa else noise

    def between(self, start: Point, end: Point) -> Point:
        """Return the point half way along a step; a schedule that has points at whole timesteps only is a ``SettingsError``."""
        raise SettingsError(
            "The solver midpoint needs a flow, whose noise has a level between any two.",
            found=f"{type(self).__name__}, whose points are training timesteps",
            hint="use --solver ddim or fixed_point.",
        )

    def coordinate(self, point: Point) -> float:
        """Return s, over which a constant slope makes a straight line."""
        return point.sigma / self._scale(point)

    def weight(self, start: Point, end: Point) -> float:
        """Return the factor of the slope in :meth:`step`, without its sign."""
        return abs(end.sigma - self._scale(end) / self._scale(start) * start.sigma)

    def _scale(self, point: Point) -> float:
        return point.alpha + self.kappa * point.sigma if self.kappa else point.alpha


class TrainableSchedule(Schedule):
    """A schedule that d3hr can train a network on."""

    @abstractmethod
    def random_times(self, count: int, generator: torch.Generator, device: torch.device) -> Times:
        """Return ``count`` random points, as training sees them."""

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return what the network should put out for alpha clean + sigma noise; ``alpha`` and ``sigma`` broadcast over [N, C, h, w]."""


def require_usable(name: str, value: Any, usable: tuple[Any, ...]) -> None:
    """Refuse a value of a scheduler's configuration that is not one of ``usable``."""
    if value not in usable:
        choices = " or ".join(repr(choice) for choice in usable)
        raise unusable(f"{name} is not {choices}", f"{name} {value!r} in scheduler_config.json", f"use a prior with {choices}.")


def unusable(why: str, found: str, hint: str) -> PriorError:
    """Return the error for a schedule that d3hr cannot follow."""
    return PriorError(f"The prior's noise schedule cannot be used: {why}.", found=found, hint=hint)
