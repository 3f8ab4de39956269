"""What evaluation, diagnosis and report need of a set of images, be it one of d3hr's or a folder that another tool left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

from d3hr.errors import DistilledSetError, SettingsError
from d3hr.sets.packing import tile_side, unpack

if TYPE_CHECKING:
    from d3hr.sets.manifest import Manifest


class ImageSet(Protocol):
    """Images of named classes: a :class:`~d3hr.sets.distilled_set.DistilledSet`, or an :class:`~d3hr.data.dataset.ImageData`."""

    @property
    def source(self) -> str:
        """Where the set is, as the user named it."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Images of each class."""

    @property
    def ipc(self) -> int:
        """Images per class; where classes differ, the mean, rounded down. 0 where only statistics are kept."""

    @property
    def image_size(self) -> int:
        """Side H = W, in pixels."""

    @property
    def pack(self) -> int:
        """Pictures along each side of an image; 1 unless the set is packed (see :mod:`d3hr.sets.packing`)."""

    @property
    def method(self) -> str:
        """Name of the method that made the set; ``folder`` where that is unknown."""

    @property
    def seed(self) -> int:
        """Seed that the set was made with; 0 where that is unknown."""

    @property
    def identity(self) -> Any:
        """JSON values that differ between any two sets: they belong into the key of every result about the set."""

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of a set that d3hr made."""

    def of_class(self, class_name: str, count: int | None = None) -> Tensor:
        """Return the first ``count`` images of a class, by default all of them, as uint8 [K, 3, H, W]."""

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return all images, uint8 [N, 3, H, W], class by class, and their labels, int64 [N]."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a packed set, in the order of their tiles, as a set whose images they are."""

    packed: ImageSet
    pack: ClassVar[int] = 1
    """Its images are single pictures."""

    @property
    def source(self) -> str:
        """Where the packed set is."""
        return self.packed.source

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""
        return self.packed.class_names

    @property
    def counts(self) -> dict[str, int]:
        """Pictures of each class."""
        return {name: self._of_each * count for name, count in self.packed.counts.items()}

    @property
    def ipc(self) -> int:
        """Pictures per class."""
        return self._of_each * self.packed.ipc

    @property
    def image_size(self) -> int:
        """Side of a picture, in pixels."""
        return tile_side(self.packed.image_size, self.packed.pack)

    @property
    def method(self) -> str:
        """Name of the method that made the packed set."""
        return self.packed.method

    @property
    def seed(self) -> int:
        """Seed of the packed set."""
        return self.packed.seed

    @property
    def identity(self) -> Any:
        """JSON values that differ between any two sets of pictures."""
        return {"pictures of": self.packed.identity}

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the packed set."""
        return self.packed.manifest

    def of_class(self, class_name: str, count: int | None = None) -> Tensor:
        """Return the first ``count`` pictures of a class, by default all of them, as uint8 [P, 3, h, h]."""
        stored = None if count is None else math.ceil(count / self._of_each)
        return unpack(self.packed.of_class(class_name, stored), self.packed.pack)[:count]

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return all pictures, uint8 [P, 3, h, h], class by class, and their labels, int64 [P]."""
        images, labels = self.packed.tensors()
        return unpack(images, self.packed.pack), labels.repeat_interleave(self._of_each)

    @property
    def _of_each(self) -> int:
        """Pictures of each stored image."""
        return self.packed.pack**2


def pictures_of(images: ImageSet) -> ImageSet:
    """Return the set whose images are the pictures of ``images``: the same set, unless it is packed."""
    return images if images.pack == 1 else Pictures(images)


def require_images(images: ImageSet) -> None:
    """Raise an error for what is no set (``SettingsError``), or a set that keeps only statistics (``DistilledSetError``)."""
    if not hasattr(images, "of_class"):
        raise SettingsError(
            "The set of images must be an opened one.",
            found=f"{type(images).__name__} {images!r:.60}",
            hint="open it with d3hr.DistilledSet.load(FOLDER), or d3hr.load_images(FOLDER) if another tool made it.",
        )
    if images.ipc == 0:
        raise DistilledSetError(
            f"{images.source} has no images.",
            found="statistics alone",
            hint=f"make some: 'd3hr expand {images.source} --ipc 10 --out SET'.",
        )
