"""Training and test images in memory, with labels, at the side that a student sees.

Legend: N images, n images of a batch, H = W image side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d3hr.data.codec import pixels_at, to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.errors import ClassMismatch, SettingsError
from d3hr.sets.image_set import ImageSet, pictures_of


@dataclass(frozen=True)
class LabelledImages:
    """Images, uint8 [N, 3, H, W], with labels, int64 [N], in memory; ``class_names`` has the name of each label."""

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
    """Return test images in memory, at a side of ``image_size`` pixels; labels follow the order of ``class_names``, the same classes.

    A share ``crop`` of each side, 0 to 1, is left of an image: it is resized to ``image_size / crop`` pixels and cropped at its centre.
    """
    names = tuple(class_names)
    ClassMismatch.unless_same(f"the test set {test.source}", test.class_names, "the training set", names)
    whole = round(image_size / crop)
    images, labels = test.at_size(whole).tensors()
    if whole > image_size:
        start = (whole - image_size) // 2
        images = images[..., start : start + image_size, start : start + image_size].clone()
    label_of = torch.tensor([names.index(name) for name in test.class_names])
    return LabelledImages(images, label_of[labels], names)
