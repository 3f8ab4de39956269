"""Diffusion that adds noise and leaves the signal as it is, behind a preconditioned network (EDM, arXiv 2206.00364).

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from d3hr.errors import SettingsError
from d3hr.prior.schedules.schedule import Point, Schedule, require_usable

Output = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """Latents under growing noise, alpha = 1, behind a preconditioned network (EDM, arXiv 2206.00364, table 1).

    Attributes:
        sigma_min: noise of clean latents.
        sigma_max: noise at the top of the grid.
        sigma_data: standard deviation of clean latents, as the preconditioning takes it.
        rho: how close together the points are at low noise (eq. 5).
        output: ``epsilon`` or ``v_prediction``, by the sign that diffusers gives the network's output.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    rho: float = 7.0
    output: Output = "epsilon"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VarianceExploding:
        """Read the configuration of one of diffusers' schedulers of EDM."""
        require_usable("prediction_type", config.get("prediction_type", "epsilon"), ("epsilon", "v_prediction"))
        require_usable("sigma_schedule", config.get("sigma_schedule", "karras"), ("karras",))
        names = ("sigma_min", "sigma_max", "sigma_data", "rho")
        return cls(**{name: float(config[name]) for name in names if name in config}, output=config.get("prediction_type", "epsilon"))

    @property
    def noise_scale(self) -> float:
        """That of the noise at the top of the grid, with the data's own added."""
        return math.hypot(self.sigma_max, self.sigma_data)

    @property
    def identity(self) -> tuple[tuple[Any, ...], list[float]]:
        """Range of the noise and preconditioning."""
        return ("exploding", self.sigma_min, self.sigma_max, self.sigma_data, self.rho, self.output), []

    def points(self, steps: int) -> list[Point]:
        """Return points from ``sigma_min`` to ``sigma_max`` (eq. 5); the network's time is ln(sigma) / 4."""
        if steps < 2:
            raise SettingsError("The number of steps is out of range.", found=f"{steps}", hint="use 2 steps or more.")
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return [self.at((low + level / (steps - 1) * (high - low)) ** self.rho) for level in range(steps)]

    def at(self, sigma: float) -> Point:
        """Return the point with noise of standard deviation ``sigma``."""
        return Point(math.log(sigma) / 4, 1.0, sigma)

    def network_input(self, latents: Tensor, point: Point) -> Tensor:
        """Return the latents at about unit scale."""
        return latents / math.hypot(point.sigma, self.sigma_data)

    def slope(self, output: Tensor, latents: Tensor, point: Point) -> Tensor:
        """Return the noise [N, C, h, w] that follows from the preconditioned output."""
        norm = math.hypot(point.sigma, self.sigma_data)
        sign = -1.0 if self.output == "v_prediction" else 1.0
        clean = (self.sigma_data / norm) ** 2 * latents + sign * point.sigma * self.sigma_data / norm * output
        return torch.as_tensor((latents - clean) / point.sigma)
