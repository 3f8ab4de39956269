"""The base of all students: an embedding of images, then a classifier.

Legend: N images, H = W image side, F features.
"""

from typing import Any

import torch
from torch import Tensor, nn

from d3hr.errors import SettingsError

SMALL_IMAGE = 64
"""Largest side, in pixels, at which networks designed for ImageNet take the form that the field uses for small images: fewer halvings."""


class Student(nn.Module):
    """A network that names the class of an image: an embedding, then a classifier that is linear in evaluation mode."""

    classifier: nn.Module

    def embed(self, images: Tensor) -> Tensor:
        """Return the features [N, F] that the classifier sees, of images [N, 3, H, W] in [-1, 1]."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, 3, H, W] in [-1, 1]."""
        return torch.as_tensor(self.classifier(self.embed(images)))


class PooledStudent(Student):
    """A network of the library transformers whose features are averaged over the image."""

    network: Any

    def embed(self, images: Tensor) -> Tensor:
        """Return the features [N, F], averaged over the image."""
        return torch.as_tensor(self.network(images).pooler_output).flatten(1)


def require_side(image_size: int, smallest: int, use: str) -> None:
    """Refuse images, for some ``use``, whose side is below ``smallest`` pixels."""
    if image_size < smallest:
        raise SettingsError(
            f"Images of {image_size} pixels are too small for {use}.",
            found=f"{image_size}",
            hint=f"use images of at least {smallest} pixels.",
        )
