"""The networks that learn from a distilled set.

Legend: N images, H = W image side.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from d3hr.errors import SettingsError

SMALL_IMAGE = 64
"""Largest side in pixels at which ResNet-18 keeps the full resolution in its stem."""
_PART = 32 * 32 * 32
"""Pixels that a ConvNet takes at a time on a CPU, 32 images of 32 pixels. No block looks across images, so the features are the same;
memory of this size is used again, where the system would give and take back hundreds of MB a layer at every step."""


class Student(nn.Module):
    """A network that names the class of an image: an embedding, then a linear classifier."""

    classifier: nn.Module

    def embed(self, images: Tensor) -> Tensor:
        """Return the features [N, F] that the classifier sees, of images [N, 3, H, W] in [-1, 1]."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, 3, H, W] in [-1, 1]."""
        logits: Tensor = self.classifier(self.embed(images))
        return logits


class ConvNet(Student):
    """The field's ConvNet (arXiv 2006.05929): blocks of 3x3 convolution, instance norm, ReLU and 2x2 average pool, then one linear layer.

    Args:
        num_classes: outputs.
        image_size: side in pixels, at least 2 ** depth.
        depth: number of blocks.
        width: channels of each block.

    Raises:
        SettingsError: the image is too small for the depth.
    """

    def __init__(self, num_classes: int, image_size: int, *, depth: int = 3, width: int = 128) -> None:
        super().__init__()
        if image_size < 2**depth:
            raise SettingsError(
                f"Images of {image_size} pixels are too small for {depth} halvings.",
                found=f"{image_size}",
                do=f"use images of at least {2**depth} pixels.",
            )
        blocks: list[nn.Module] = []
        for index in range(depth):
            # GroupNorm with one channel a group is instance norm with learned scale and shift.
            blocks += [nn.Conv2d(3 if index == 0 else width, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * (image_size // 2**depth) ** 2, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """Return the features of the last block, flattened."""
        count = max(1, _PART // images[0, 0].numel()) if images.device.type == "cpu" else len(images)
        return torch.cat([self.features(part) for part in images.split(count)]).flatten(1)


class ResNet18(Student):
    """ResNet-18 (arXiv 1512.03385) with random weights.

    Up to 64 pixels its stem is the 32-pixel form that the field uses, a 3x3 convolution of stride 1 without max-pool.

    Args:
        num_classes: outputs.
        image_size: side in pixels.
    """

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetForImageClassification

        config = ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=num_classes
        )
        whole = ResNetForImageClassification(config)
        self.network, self.classifier = whole.resnet, whole.classifier[-1]
        if image_size <= SMALL_IMAGE:
            stem = self.network.embedder
            stem.embedder.convolution = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(stem.embedder.convolution.weight, mode="fan_out", nonlinearity="relu")
            stem.pooler = nn.Identity()

    def embed(self, images: Tensor) -> Tensor:
        """Return the features averaged over the image."""
        pooled: Tensor = self.network(images).pooler_output
        return pooled.flatten(1)


def new_student(name: str, num_classes: int, image_size: int) -> Student:
    """Return an untrained student: ``resnet18``, ``convnet3``, or ``convnetN`` for N blocks.

    It takes images [N, 3, H, W] in [-1, 1] to logits [N, classes].

    Raises:
        SettingsError: the name is unknown or the images are too small.
    """
    if name == "resnet18":
        return ResNet18(num_classes, image_size)
    match = re.fullmatch(r"convnet([1-9])", name)
    if match is None:
        raise SettingsError("Unknown student.", found=repr(name), do="use resnet18 or convnet3 (or convnet1 to convnet9).")
    return ConvNet(num_classes, image_size, depth=int(match[1]))
