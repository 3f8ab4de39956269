"""The real images of a class as points, by which they are compared: small pictures, latents of a prior, or features of a teacher.

Legend: N images of a class, F features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.data.codec import to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import check_finite
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import image_order, invert_by_settings
from d3hr.errors import NumericalError
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.staging import kept_tensors
from d3hr.prior.conditions import Condition
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.selection.difficulty import denoising_loss
from d3hr.selection.spaces import small_pixels

SMALL_SIDE = 8
"""Side, in pixels, of the small pictures that images are compared by in the space ``pixel``."""
_READ_SIDE = 4 * SMALL_SIDE
"""Side at which images are decoded for them."""
_BATCH = 64
_LOSS_LEVELS = (0.2, 0.4, 0.6)
"""Levels, as shares of the grid, at which the loss of a prior orders images."""
_LOSS_NOISES = 2
"""Noises at each of them."""


@dataclass(frozen=True)
class Features:
    """The points of each class.

    Attributes:
        images: the real images.
        settings: which space, and how latents are inverted; with ``max_images_per_class`` a class is a sample of its images.
        conditions: class -> what the prior is given of it, for inverted latents.
        prior: for the space ``latent``.
        teacher: for the space ``teacher``.
        folder: where latents and a teacher's features are kept, for other sets of the same data; by default nowhere.
        progress: where to report a damaged file there.
    """

    images: ImageData
    settings: DistillSettings
    conditions: Mapping[str, Condition]
    prior: Prior | None = None
    teacher: Teacher | None = None
    folder: Path | None = None
    progress: Progress = SILENT

    def indices(self, class_name: str) -> Sequence[int]:
        """Return the indices of the images that are looked at, [N]."""
        count = self.images.counts[class_name]
        return image_order(class_name, count, self.settings)[: self.settings.max_images_per_class]

    def of(self, class_name: str) -> Tensor:
        """Return the points of a class, float64 [N, F], in the order of :meth:`indices`.

        Raises:
            NumericalError: a latent or feature is not finite.
        """
        if self.settings.space == "pixel":
            small = (small_pixels(to_unit_range(pixels), SMALL_SIDE) for pixels in self._pixels(class_name, _READ_SIDE))
            return torch.cat(list(small)).double()
        side, embed = self._embedding(class_name)

        def compute() -> dict[str, Tensor]:
            points = torch.cat([embed(to_unit_range(pixels)).flatten(1).float().cpu() for pixels in self._pixels(class_name, side)])
            with NumericalError.naming(class_name):
                check_finite(points, "encoding", f"in its {self.settings.space} features")
            return {"features": points}

        return self._kept(class_name, "features", compute).double()

    def losses(self, class_name: str) -> Tensor:
        """Return the denoising loss of the prior for each image of a class, float64 [N], in the order of :meth:`indices`."""
        prior = self.prior
        assert prior is not None

        def compute() -> dict[str, Tensor]:
            latents = torch.cat([prior.encode(to_unit_range(pixels)) for pixels in self._pixels(class_name, prior.image_size)])
            steps = self.settings.steps
            levels = [round(share * steps) for share in _LOSS_LEVELS]
            with NumericalError.naming(class_name):
                losses = denoising_loss(
                    prior, latents, self.conditions[class_name], levels=levels, noises=_LOSS_NOISES, seed=0, steps=steps
                )
            return {"losses": losses}

        return self._kept(class_name, "losses", compute)

    def _pixels(self, class_name: str, side: int) -> Iterator[Tensor]:
        indices, images = self.indices(class_name), self.images.at_size(side)
        for start in range(0, len(indices), _BATCH):
            yield images.pixels(class_name, indices[start : start + _BATCH])

    def _embedding(self, class_name: str) -> tuple[int, Callable[[Tensor], Tensor]]:
        """Return the side of a network's images, and what it makes of images [n, 3, H, W]."""
        if self.settings.space == "teacher":
            assert self.teacher is not None
            return self.teacher.image_size, self.teacher.embed
        assert self.prior is not None
        prior, settings = self.prior, self.settings

        def latents(images: Tensor) -> Tensor:
            clean = prior.encode(images)
            if not settings.statistics_level:
                return clean
            return invert_by_settings(prior, clean, self.conditions[class_name], settings)

        return prior.image_size, latents

    def _kept(self, class_name: str, kind: str, compute: Callable[[], dict[str, Tensor]]) -> Tensor:
        """Return a tensor of one class, found in the folder or computed and kept there, if there is one."""
        if self.folder is None:
            return compute()[kind]
        number = self.images.class_names.index(class_name)
        return kept_tensors(self.folder, kind, self._key(kind), number, compute, self.progress)[kind]

    def _key(self, kind: str) -> dict[str, Any]:
        """Return what decides the tensors of a kind, of all classes."""
        teacher = kind == "features" and self.settings.space == "teacher"
        network = self.teacher if teacher else self.prior
        names = ["max_images_per_class", "sample_seed"]
        inverted = kind == "losses" or (self.settings.space == "latent" and self.settings.statistics_level > 0)
        if inverted:
            names += ["steps"] if kind == "losses" else ["statistics_level", "steps", "inversion_guidance", "inversion_stride", "solver"]
        return {
            "kind": kind,
            "data": self.images.fingerprint,
            "network": network.fingerprint if network else None,
            **{name: getattr(self.settings, name) for name in names},
            "conditioning": [condition.key for condition in self.conditions.values()] if inverted else [],
        }
