"""What every student is: an embedding of images, then a classifier.

Legend: N images, H = W image side, F features.
"""

from __future__ import annotations

from torch import Tensor, nn

SMALL_IMAGE = 64
"""Largest side in pixels at which networks made for ImageNet take the field's small form, which halves the image less often."""


class Student(nn.Module):
    """A network that names the class of an image: an embedding, then a classifier that is linear in evaluation mode."""

    classifier: nn.Module

    def embed(self, images: Tensor) -> Tensor:
        """Return the features [N, F] that the classifier sees, of images [N, 3, H, W] in [-1, 1]."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, 3, H, W] in [-1, 1]."""
        logits: Tensor = self.classifier(self.embed(images))
        return logits
