"""Training and test images, decoded, with labels, at the side that a student sees.

Legend: N images, n images of a batch, H = W image side.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.data.codec import pixels_at, to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.data.decoded import decoded
from d3hr.errors import ClassMismatch, SettingsError
from d3hr.sets.image_set import ImageSet, pictures_of

_CHUNK = 256


@dataclass(frozen=True)
class LabelledImages:
    """Decoded images, uint8 [N, 3, H, W], with labels, int64 [N]; ``class_names`` has the name of each label."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    of_each: int = 1
    """How many of them each stored image holds: 1, unless they are the pictures of a packed set."""

    @property
    def stored(self) -> int:
        """Number of stored images, which decides the length of a training."""
        return len(self.labels) // self.of_each

    @property
    def image_size(self) -> int:
        """Side H = W, in pixels."""
        return self.images.shape[-1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over class names, labels and pixels."""
        digest = hashlib.sha256(repr((self.class_names, self.labels.tolist(), tuple(self.images.shape))).encode())
        for part in self.images.split(_CHUNK):
            digest.update(part.contiguous().numpy())
        return digest.hexdigest()

    def read(self, positions: Tensor) -> Tensor:
        """Return the images [n, 3, H, W] in [-1, 1] at ``positions``, int64 [n]."""
        return to_unit_range(self.images[positions])


def training_images(distilled: ImageSet, image_size: int | None = None) -> LabelledImages:
    """Return the images of a set in memory, resized to ``image_size`` pixels if given; labels follow the set's order of classes.

    It is the resize of :func:`real_images`: images of files go to this side in one step, those of a stored set from the side it has. Of a
    packed set they are its pictures, each with the label of its stored image: where no side is given, they have that of a tile.
    """
    if image_size is not None and image_size < 1:
        raise SettingsError("--image-size must be positive.", found=f"{image_size}", hint="give a side in pixels, or leave it out.")
    if image_size is not None and isinstance(distilled, ImageData):
        distilled = distilled.at_size(image_size)
    shown = pictures_of(distilled)
    images, labels = shown.tensors()
    return LabelledImages(pixels_at(images, image_size or shown.image_size), labels, shown.class_names, distilled.pack**2)


def real_images(test: ImageData, class_names: Sequence[str], image_size: int, crop: float = 1.0) -> LabelledImages:
    """Return test images, decoded, as :meth:`StudentImages.tested` does."""
    return StudentImages(test).tested(class_names, image_size, crop)


class StudentImages:
    """The images that the students of a comparison see, decoded once: those they are tested on, and those of the set trained on last.

    Pixels are kept as long as this object is; over 1 GiB of test images at one side are in a temporary file. Another process that it is
    sent to decodes for itself.
    """

    def __init__(self, test: ImageData) -> None:
        self.test = test
        self._tested: dict[tuple[tuple[str, ...], int, float], LabelledImages] = {}
        self._at: dict[int, tuple[Tensor, Tensor]] = {}
        self._last: tuple[ImageSet, int | None, LabelledImages] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return StudentImages, (self.test,)

    def require_classes(self, class_names: Sequence[str]) -> None:
        """Refuse (``ClassMismatch``) classes of a training set that are not those of the test images, in whatever order."""
        ClassMismatch.unless_same(f"the test set {self.test.source}", self.test.class_names, "the training set", class_names)

    def tested(self, class_names: Sequence[str], image_size: int, crop: float = 1.0) -> LabelledImages:
        """Return the test images at a side of ``image_size`` pixels; labels follow the order of ``class_names``, the same classes.

        A share ``crop`` of each side, 0 to 1, is left of an image: it is resized to ``image_size / crop`` pixels and cropped at its centre.
        """
        self.require_classes(class_names)
        key = names, _, _ = tuple(class_names), image_size, crop
        if key not in self._tested:
            whole = round(image_size / crop)
            if whole not in self._at:
                self._at[whole] = decoded(self.test.at_size(whole), Path(tempfile.gettempdir())).tensors()
            images, labels = self._at[whole]
            start = (whole - image_size) // 2
            label_of = torch.tensor([names.index(name) for name in self.test.class_names])
            cropped = images[..., start : start + image_size, start : start + image_size]
            self._tested[key] = LabelledImages(cropped, label_of[labels], names)
        return self._tested[key]

    def trained(self, distilled: ImageSet, image_size: int | None) -> LabelledImages:
        """Return :func:`training_images`; those of another set are released before."""
        if self._last is None or self._last[0] is not distilled or self._last[1] != image_size:
            self._last = None
            self._last = distilled, image_size, training_images(distilled, image_size)
        return self._last[2]
