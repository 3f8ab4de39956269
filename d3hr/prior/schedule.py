"""The noise schedule of a prior: how much signal is left at each training timestep, and the grid of levels that sampling visits.

Legend: N latents, C h w latent axes, T training timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from d3hr.errors import PriorError, SettingsError

Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving diffusion schedule over T training timesteps (DDPM, arXiv 2006.11239).

    Attributes:
        alphas_cumprod: float64 [T], the share of signal variance left at each timestep, falling from about 1 to about 0.
        steps_offset: added to every timestep of a grid with leading spacing.
        spacing: how the points of a grid are spread over the timesteps, as ``timestep_spacing`` of diffusers' schedulers.
        prediction: what the network predicts: the noise, v (arXiv 2202.00512), or the clean sample.
    """

    alphas_cumprod: Tensor
    steps_offset: int = 0
    spacing: Spacing = "leading"
    prediction: Prediction = "epsilon"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Read a diffusers ``scheduler_config.json``; it must give noise variances (betas), and no clipping: inversion cannot undo it."""
        from diffusers import DDIMScheduler

        if not {"beta_start", "beta_schedule", "trained_betas"} & set(config):
            raise _unusable("it has no betas", f"class {config.get('_class_name')}", "use a prior trained with DDPM's noise schedule.")
        for name, value, usable in (
            ("prediction_type", config.get("prediction_type", "epsilon"), get_args(Prediction)),
            ("timestep_spacing", config.get("timestep_spacing", "leading"), get_args(Spacing)),
            ("clip_sample", config.get("clip_sample", False), (False,)),
            ("thresholding", config.get("thresholding", False), (False,)),
        ):
            if value not in usable:
                choices = " or ".join(repr(choice) for choice in usable)
                raise _unusable(f"{name} is not {choices}", f"{name} {value!r} in scheduler_config.json", f"use a prior with {choices}.")
        betas: Tensor = DDIMScheduler.from_config(dict(config)).betas
        return cls(
            torch.cumprod(1 - betas.double(), dim=0),
            int(config.get("steps_offset", 0)),
            config.get("timestep_spacing", "leading"),
            config.get("prediction_type", "epsilon"),
        )

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

    def path(self, level: int, steps: int) -> list[tuple[int, float]]:
        """Return (timestep, signal variance) of levels 0 to ``level``; clean latents are at level 0, with ``alphas_cumprod[0]``.

        A level that is not on the grid, or at which no signal is left, is a ``SettingsError``.
        """
        grid = self.grid(steps)
        if not 0 <= level < steps:
            raise SettingsError(
                "The level is not on the grid.", found=f"level {level} of {steps} steps", hint=f"use a level from 0 to {steps - 1}."
            )
        alphas = self.alphas_cumprod[grid[: level + 1]].tolist()
        if alphas[-1] <= 0:
            raise SettingsError("No signal is left at this level.", found=f"level {level} of {steps} steps", hint="use a lower level.")
        return list(zip(grid[: level + 1].tolist(), [float(self.alphas_cumprod[0]), *alphas[1:]], strict=True))

    def noise(self, output: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """Return the noise [N, C, h, w] in ``latents`` that follows from a network's ``output`` (same shape) at a timestep."""
        alpha = float(self.alphas_cumprod[timestep])
        if self.prediction == "v_prediction":
            return torch.as_tensor(alpha**0.5 * output + (1 - alpha) ** 0.5 * latents)
        if self.prediction == "sample":
            return torch.as_tensor((latents - alpha**0.5 * output) / (1 - alpha) ** 0.5)
        return output

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        """Return what the network should predict from sqrt(alpha) clean + sqrt(1 - alpha) noise; ``alpha`` broadcasts over [N, C, h, w]."""
        if self.prediction == "v_prediction":
            return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        return clean if self.prediction == "sample" else noise


def _unusable(why: str, found: str, hint: str) -> PriorError:
    return PriorError(f"The prior's noise schedule cannot be used: {why}.", found=found, hint=hint)
