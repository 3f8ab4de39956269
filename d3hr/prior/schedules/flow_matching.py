"""Flow matching: straight paths from clean latents to noise (arXiv 2210.02747, 2403.03206).

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from d3hr.errors import SettingsError
from d3hr.prior.schedules.schedule import Point, Times, TrainableSchedule


@dataclass(frozen=True)
class FlowMatching(TrainableSchedule):
    """A straight path from clean latents to noise, alpha = 1 - sigma, whose velocity noise - clean the network puts out (arXiv 2210.02747).

    Attributes:
        shift: moves the points of a grid towards noise: sigma = shift u / (1 + (shift - 1) u) of even u (arXiv 2403.03206, eq. 23).
        time_scale: the network's time over sigma, such as 1000 for diffusers' transformers.
        from_noise: whether the network counts its time from noise to data, time_scale (1 - sigma), and puts out clean - noise, as SiT does.
    """

    kappa: ClassVar[float] = 1.0
    shift: float = 1.0
    time_scale: float = 1000.0
    from_noise: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FlowMatching:
        """Read the configuration of a diffusers scheduler for flows."""
        shift = float(config.get("shift") or config.get("flow_shift") or 1.0)
        return cls(shift=shift, time_scale=float(config.get("num_train_timesteps", 1000)))

    @property
    def identity(self) -> tuple[tuple[Any, ...], list[float]]:
        """Shift and the kind of time."""
        return ("flow", self.shift, self.time_scale, self.from_noise), []

    def points(self, steps: int) -> list[Point]:
        """Return points from clean latents (sigma = 0) to pure noise (sigma = 1)."""
        if steps < 2:
            raise SettingsError("The number of steps is out of range.", found=f"{steps}", hint="use 2 steps or more.")
        return [self.at(self._shifted(level / (steps - 1))) for level in range(steps)]

    def at(self, sigma: float) -> Point:
        """Return the point with a share ``sigma`` of noise, 0 to 1."""
        return Point(self.time_scale * (1 - sigma if self.from_noise else sigma), 1 - sigma, sigma)

    def between(self, start: Point, end: Point) -> Point:
        """Return the point half way along a step."""
        return self.at((start.sigma + end.sigma) / 2)

    def slope(self, output: Tensor, latents: Tensor, point: Point) -> Tensor:
        """Return the velocity noise - clean [N, C, h, w]."""
        return -output if self.from_noise else output

    def random_times(self, count: int, generator: torch.Generator, device: torch.device) -> Times:
        """Return logit-normal shares of noise (arXiv 2403.03206, eq. 19 with m = 0, s = 1), shifted as the grid is."""
        sigma = self._shifted(torch.randn(count, generator=generator, device=device).sigmoid())
        return Times(self.time_scale * (1 - sigma if self.from_noise else sigma), 1 - sigma, sigma)

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the velocity, in the network's direction."""
        return clean - noise if self.from_noise else noise - clean

    def _shifted(self, u: Any) -> Any:
        return self.shift * u / (1 + (self.shift - 1) * u)
