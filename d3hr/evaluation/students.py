"""The networks that learn from a distilled set.

Legend: N images, H = W image side.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from d3hr.errors import SettingsError


class ConvNet(nn.Module):
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

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [N, classes] of images [N, 3, H, W]."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def new_student(name: str, num_classes: int, image_size: int) -> nn.Module:
    """Return an untrained student: ``convnet3``, or ``convnetN`` for N blocks.

    Raises:
        SettingsError: the name is unknown or the images are too small.
    """
    match = re.fullmatch(r"convnet([1-9])", name)
    if match is None:
        raise SettingsError("Unknown student.", found=repr(name), do="use convnet3 (or convnet1 to convnet9).")
    return ConvNet(num_classes, image_size, depth=int(match[1]))
