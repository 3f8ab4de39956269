"""Diffusion whose latents keep their variance, over training timesteps (DDPM, arXiv 2006.11239).

Legend: N latents, C h w latent axes, T training timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from d3hr.errors import SettingsError
from d3hr.prior.schedules.schedule import Point, Times, TrainableSchedule, require_usable, unusable

Output = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]


@dataclass(frozen=True)
class VariancePreserving(TrainableSchedule):
    """A diffusion over T training timesteps (DDPM, arXiv 2006.11239): alpha^2 is the share of signal variance, and sigma^2 = 1 - alpha^2.

    Attributes:
        alphas_cumprod: float64 [T], the share of signal variance left at each timestep, falling from about 1 to about 0.
        steps_offset: added to every timestep of a grid with leading spacing.
        spacing: how the points of a grid are spread over the timesteps, as ``timestep_spacing`` of diffusers' schedulers.
        output: what the network puts out: the noise, v (arXiv 2202.00512), or the clean sample.
    """

    alphas_cumprod: Tensor
    steps_offset: int = 0
    spacing: Spacing = "leading"
    output: Output = "epsilon"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VariancePreserving:
        """Read a diffusers ``scheduler_config.json``; it must give noise variances (betas)."""
        from diffusers import DDIMScheduler

        if not {"beta_start", "beta_schedule", "trained_betas"} & set(config):
            raise unusable(
                "it has no betas",
                f"class {config.get('_class_name')}",
                "use a prior with DDPM's noise schedule, a flow-matching one or one of EDM.",
            )
        require_usable("prediction_type", config.get("prediction_type", "epsilon"), get_args(Output))
        require_usable("timestep_spacing", config.get("timestep_spacing", "leading"), get_args(Spacing))
        betas: Tensor = DDIMScheduler.from_config(dict(config)).betas
        return cls(
            torch.cumprod(1 - betas.double(), dim=0),
            int(config.get("steps_offset", 0)),
            config.get("timestep_spacing", "leading"),
            config.get("prediction_type", "epsilon"),
        )

    @property
    def identity(self) -> tuple[tuple[Any, ...], list[float]]:
        """Spacing and kind of output, and the table of signal variances."""
        return (self.steps_offset, self.spacing, self.output), self.alphas_cumprod.tolist()

    def grid(self, steps: int) -> Tensor:
        """Return the timesteps of the levels, int64 [steps], ascending; with leading spacing, 50 steps of 1000 are 0, 20, ..., 980."""
        timesteps = len(self.alphas_cumprod)
        if not 1 <= steps <= timesteps:
            raise SettingsError("The number of steps is out of range.", found=f"{steps}", hint=f"use 1 to {timesteps} steps.")
        if self.spacing == "leading":
            grid = torch.arange(steps) * (timesteps // steps) + self.steps_offset
        elif self.spacing == "trailing":
            grid = (torch.arange(1, steps + 1, dtype=torch.float64) * timesteps / steps).round().long() - 1
        else:
            grid = torch.linspace(0, timesteps - 1, steps, dtype=torch.float64).round().long()
        return grid.clamp(max=timesteps - 1)

    def at(self, timestep: int) -> Point:
        """Return the point of a training timestep, 0 to T - 1."""
        return _preserving(timestep, float(self.alphas_cumprod[timestep]))

    def points(self, steps: int) -> list[Point]:
        """Return the points of :meth:`grid`; clean latents are at level 0, with ``alphas_cumprod[0]`` whatever the timestep."""
        grid = self.grid(steps)
        variances = [float(self.alphas_cumprod[0]), *self.alphas_cumprod[grid[1:]].tolist()]
        return [_preserving(timestep, variance) for timestep, variance in zip(grid.tolist(), variances, strict=True)]

    def slope(self, output: Tensor, latents: Tensor, point: Point) -> Tensor:
        """Return the noise [N, C, h, w] that follows from a network's output."""
        if self.output == "v_prediction":
            return torch.as_tensor(point.alpha * output + point.sigma * latents)
        return torch.as_tensor((latents - point.alpha * output) / point.sigma) if self.output == "sample" else output

    def random_times(self, count: int, generator: torch.Generator, device: torch.device) -> Times:
        """Return timesteps of even chance (DDPM, algorithm 1)."""
        t = torch.randint(len(self.alphas_cumprod), (count,), generator=generator, device=device)
        variance = self.alphas_cumprod.float().to(device)[t]
        return Times(t, variance.sqrt(), (1 - variance).sqrt())

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return noise, v or the clean sample, whichever the network puts out."""
        if self.output == "v_prediction":
            return alpha * noise - sigma * clean
        return clean if self.output == "sample" else noise


def _preserving(timestep: int, variance: float) -> Point:
    return Point(timestep, variance**0.5, (1 - variance) ** 0.5)
