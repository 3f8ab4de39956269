"""The ConvNet of the data-set distillation literature.

Legend: N images, H = W image side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d3hr.errors import SettingsError
from d3hr.evaluation.networks.student import Student

_PART = 32 * 32 * 32
"""Pixels that a ConvNet takes at a time on a CPU, 32 images of 32 pixels. No block looks across images, so the features are the same;
memory of this size is used again, where the system would give and take back hundreds of MB a layer at every step."""


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
                hint=f"use images of at least {2**depth} pixels.",
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
