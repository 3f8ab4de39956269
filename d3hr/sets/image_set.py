"""What a diagnosis asks of a set, be it one of d3hr's or a folder that another tool left.

Legend: K images of a class, H = W image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3hr.data.codec import to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import ClassMismatch
from d3hr.fileio.names import class_folders
from d3hr.prior.class_matching import Conditioning, match_classes
from d3hr.prior.model import Prior
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.manifest import Manifest


@dataclass(frozen=True)
class Subject:
    """A distilled set under examination."""

    distilled: DistilledSet | ImageData

    @property
    def manifest(self) -> Manifest | None:
        """What d3hr knows of a set of its own."""
        return self.distilled.manifest if isinstance(self.distilled, DistilledSet) else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.distilled.class_names

    @property
    def path(self) -> str:
        """Where it is."""
        return str(self.distilled.path if isinstance(self.distilled, DistilledSet) else self.distilled.source)

    @property
    def method(self) -> str:
        """What made it; ``folder`` where that is unknown."""
        return self.manifest.method if self.manifest else "folder"

    @property
    def ipc(self) -> int:
        """Images per class; of a folder, the mean."""
        return self.manifest.ipc if self.manifest else round(len(self._images) / len(self.class_names))

    @property
    def image_size(self) -> int:
        """Side H = W, in pixels."""
        return self.manifest.image_size if self.manifest else self._images.image_size

    @property
    def settings(self) -> DistillSettings | None:
        """Settings of a set that was drawn from class Gaussians."""
        settings = self.manifest.settings if self.manifest else {}
        return DistillSettings(**settings) if "statistics_level" in settings else None

    @property
    def folders(self) -> dict[str, str]:
        """Class name -> its folder under ``train``."""
        return {entry.name: entry.folder for entry in self.manifest.classes} if self.manifest else class_folders(self.class_names)

    @property
    def identity(self) -> Any:
        """What tells it from other sets, as JSON values."""
        return self.manifest.model_dump(mode="json") if self.manifest else self._images.fingerprint

    def of_class(self, name: str) -> Tensor:
        """Return the images of one class, float [K, 3, H, W] in [-1, 1]."""
        if isinstance(self.distilled, DistilledSet):
            return to_unit_range(self.distilled.of_class(name))
        return torch.cat(list(self.distilled.batches(name)))

    def conditioning(self, images: ImageData, prior: Prior) -> Sequence[Conditioning]:
        """Return the prior's classes: those the set was made with, if this is that prior, else those of the same names, if any.

        Raises:
            ClassMismatch: a class could be several of the prior's.
            DistilledSetError: the manifest names classes that the prior does not have.
        """
        if self.manifest and prior.fingerprint == self.manifest.prior.get("fingerprint"):
            return self.manifest.conditioning_in(prior.class_names)
        return match_classes(images.class_names, prior.class_names, of=images.source, allow_missing=True)

    def require_same_classes(self, images: ImageData) -> None:
        """Refuse real images of other classes, and a set without images.

        Raises:
            ClassMismatch: the classes differ.
            DistilledSetError: only statistics are kept.
        """
        if isinstance(self.distilled, DistilledSet):
            self.distilled.require_images()
        ours, theirs = self.class_names, images.class_names
        if not set(ours) <= set(theirs):
            raise ClassMismatch("the distilled set", ours, f"the real images {images.source}", theirs)
        if not set(theirs) <= set(ours):
            raise ClassMismatch(f"the real images {images.source}", theirs, "the distilled set", ours)

    @property
    def _images(self) -> ImageData:
        assert isinstance(self.distilled, ImageData)
        return self.distilled
