"""The noise schedule of a prior: how much signal is left at each training timestep, and the grid that sampling walks on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3hr.errors import PriorError, SettingsError


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving diffusion schedule over T training timesteps (DDPM, arXiv 2006.11239).

    Attributes:
        alphas_cumprod: float64 [T], the share of signal variance left at each timestep, falling from about 1 to about 0.
        steps_offset: added to every timestep of a grid (``steps_offset`` of the pipeline's scheduler).
    """

    alphas_cumprod: Tensor
    steps_offset: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """Read a diffusers ``scheduler_config.json``.

        Raises:
            PriorError: the model predicts something other than the noise.
        """
        from diffusers import DDIMScheduler

        prediction = config.get("prediction_type", "epsilon")
        if prediction != "epsilon":
            raise PriorError(
                "This prior does not predict noise.",
                found=f"prediction_type {prediction!r} in scheduler_config.json",
                do="use a prior trained with prediction_type 'epsilon'.",
            )
        betas: Tensor = DDIMScheduler.from_config(dict(config)).betas
        return cls(torch.cumprod(1 - betas.double(), dim=0), int(config.get("steps_offset", 0)))

    def grid(self, steps: int) -> Tensor:
        """Return the int64 [steps] ascending timesteps with leading spacing: 50 steps of 1000 are 0, 20, ..., 980.

        Raises:
            SettingsError: more steps than training timesteps, or none.
        """
        timesteps = len(self.alphas_cumprod)
        if not 1 <= steps <= timesteps:
            raise SettingsError("The number of steps is out of range.", found=f"{steps}", do=f"use 1 to {timesteps} steps.")
        return (torch.arange(steps) * (timesteps // steps) + self.steps_offset).clamp(max=timesteps - 1)
