"""What a prior's network is given of a class, next to the latents and the time: made once per class, the same for all its images.

Legend: N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from d3hr.errors import SettingsError

Inputs = Mapping[str, Tensor]
"""Arguments of a network by name: those of one image without the axis of images, or those of a batch."""


@dataclass(frozen=True, eq=False)
class Condition:
    """The condition of one class. It travels to other processes: no text encoder is needed there."""

    key: int | str | None
    """The same in words: a row of a label table, or a prompt; None where the prior is given nothing."""
    inputs: Inputs = field(default_factory=dict)
    """Arguments of the network for one image of the class, without the axis of images."""
    null: Inputs | None = None
    """The arguments that guidance leads away from: those of no class in particular. None where the prior knows none."""

    def to(self, device: torch.device) -> Condition:
        """Return the same with its arguments on a device, so that they are not copied there at each call of the network."""
        null = self.null and {name: value.to(device) for name, value in self.null.items()}
        return replace(self, inputs={name: value.to(device) for name, value in self.inputs.items()}, null=null)

    def batch(self, count: int, *, guided: bool = False) -> dict[str, Tensor]:
        """Return the arguments for ``count`` images; if ``guided``, for as many again of no class.

        Raises:
            SettingsError: guidance without a null condition.
        """
        parts = [self.inputs]
        if guided:
            if self.null is None:
                raise unguided(f"guidance for condition {self.key!r}")
            parts.append(self.null)
        repeated = [{name: value.expand(count, *value.shape) for name, value in part.items()} for part in parts]
        return {name: torch.cat([part[name] for part in repeated]) for name in self.inputs}


def unguided(found: str) -> SettingsError:
    """Return the error for guidance of a prior that has no null condition."""
    return SettingsError(
        "This prior cannot be guided: it knows no image of no class.",
        found=found,
        hint="give --inversion-guidance 1 and --denoising-guidance 1.",
    )
