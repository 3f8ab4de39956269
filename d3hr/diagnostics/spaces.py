"""The spaces in which images are compared: pixels, a prior's latents, a teacher's features.

Legend: N images, H = W image side, D features.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from d3hr.data.codec import resized
from d3hr.distillation.ddim import check_finite
from d3hr.errors import SettingsError
from d3hr.evaluation.teachers import Teacher
from d3hr.prior.model import Prior

SpaceName = Literal["pixel", "latent", "teacher"]
Array = np.ndarray[Any, np.dtype[Any]]
PIXEL_SIDE = 32
"""Images are compared as pixels at this side at most: a finer grid costs memory and shows texture, hardly content."""
_BATCH = 64


@dataclass(frozen=True)
class FeatureSpace:
    """How images become points: ``embed`` maps images [N, 3, H, W] in [-1, 1] to features [N, D]; ``about`` names the space in words.

    It travels to other processes.
    """

    name: SpaceName
    about: str
    embed: Callable[[Tensor], Tensor]

    def points(self, images: Tensor) -> Array:
        """Return features float32 [N, D], all of them finite, of images [N, 3, H, W] in [-1, 1], of any side."""
        features = torch.cat([self.embed(part).flatten(1).float().cpu() for part in images.split(_BATCH)])
        check_finite(features, "embedding", f"in {self.name} space")
        return features.numpy()


def feature_space(name: SpaceName | None = None, *, prior: Prior | None = None, teacher: Teacher | None = None) -> FeatureSpace:
    """Return a space, by default that of the teacher, else of the prior, else of pixels."""
    chosen = name or ("teacher" if teacher else "latent" if prior else "pixel")
    if chosen not in get_args(SpaceName):
        raise SettingsError("Unknown space.", found=repr(chosen), hint=f"use one of: {', '.join(get_args(SpaceName))}.")
    if chosen == "pixel":
        return FeatureSpace(
            "pixel",
            f"colours at most {PIXEL_SIDE} pixels a side",
            _small,
        )
    if chosen == "latent":
        if prior is None:
            raise SettingsError("Latent space needs a prior.", found="none", hint="give --prior, or take --space pixel.")
        return FeatureSpace("latent", "clean latents of the prior", partial(_latents, prior))
    if teacher is None:
        raise SettingsError("Teacher space needs a teacher.", found="none", hint="give --teacher, or take --space pixel.")
    return FeatureSpace("teacher", f"features of the teacher, {teacher.student}", teacher.embed)


def _small(images: Tensor) -> Tensor:
    return resized(images, min(images.shape[-1], PIXEL_SIDE)).clamp(-1, 1)


def _latents(prior: Prior, images: Tensor) -> Tensor:
    return prior.encode(resized(images, prior.image_size).clamp(-1, 1))


def scaling(real: Array) -> Callable[[Array], Array]:
    """Return the function of points [N, D] that shifts and scales a whole space so that ``real`` has mean 0 and mean squared norm 1.

    All dimensions are scaled alike: dividing each by its own spread would blow up those that hardly vary, such as the corners of digits.
    A distance is then in units of the real images' root mean square distance from their mean. Images without any spread keep their scale.
    """
    mean = real.mean(axis=0, dtype=np.float64)
    square = float(np.mean([((row - mean) ** 2).sum() for row in real]))
    factor = square**-0.5 if square > 0 else 1.0
    return lambda points: np.asarray((points - mean) * factor, dtype=np.float32)


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
