"""Networks of depthwise convolutions, made for small devices.

Up to 64 pixels both leave out their first two halvings, that of the stem and that of the first stage that has one, as the small form of a
ResNet does: 32 pixels end in a map of 4 x 4 where the published networks would leave one of 1 x 1. The number of weights does not change.
Padding is TensorFlow's, which rounds half a side up, so that images of any side pass.

What transformers sets is changed in two points, since it is meant for loading weights. Its batch norms have the momentum 0.997 and 0.99
of TensorFlow, where it is the share of the old value; PyTorch reads the share of the new one, and a test would see the statistics of the
last batch alone. It is 0.1 here, as in torchvision; the papers' own share of the new value, 0.003 and 0.01, outlasts short trainings. And
weights start by He's rule (fan out), scales of batch norms at 1: in transformers the scales of EfficientNet start near 0, which lets
nothing through. The eps of batch norm is the library's 1e-3.

Legend: N images, H = W image side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from d3hr.evaluation.networks.student import SMALL_IMAGE, Student

if TYPE_CHECKING:
    from transformers import EfficientNetConfig

DROPOUT = 0.2
"""Share of features that are dropped before the classifier in training, in both papers. The default of transformers for MobileNetV2 is 0.8,
the share that is kept; that for EfficientNet, 0.5, is B7's."""
_MOMENTUM = 0.1


class MobileNetV2(Student):
    """MobileNetV2 of width 1.0 (arXiv 1801.04381) with random weights; see this module's text for its form at small sides.

    Args:
        num_classes: outputs.
        image_size: side in pixels.
    """

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

        whole = MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=num_classes))
        self.network, self.classifier = whole.mobilenet_v2, nn.Sequential(nn.Dropout(DROPOUT), whole.classifier)
        _start(self.network)
        if image_size <= SMALL_IMAGE:
            self.network.conv_stem.first_conv.convolution.stride = (1, 1)
            self.network.layer[0].conv_3x3.convolution.stride = (1, 1)

    def embed(self, images: Tensor) -> Tensor:
        """Return the features averaged over the image."""
        pooled: Tensor = self.network(images).pooler_output
        return pooled


class EfficientNetB0(Student):
    """EfficientNet-B0 (arXiv 1905.11946) with random weights; see this module's text for its form at small sides.

    In training, branches beside a shortcut lose up to a fifth of their values (``drop_connect_rate`` 0.2, the library's default, growing
    with depth); the library drops values, where the paper drops whole branches of an image.

    Args:
        num_classes: outputs.
        image_size: side in pixels.
    """

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        from transformers import EfficientNetConfig, EfficientNetForImageClassification

        small = image_size <= SMALL_IMAGE
        config = EfficientNetConfig(
            width_coefficient=1.0,
            depth_coefficient=1.0,
            hidden_dim=1280,
            strides=[1, 1 if small else 2, 2, 2, 1, 2, 1],
            num_labels=num_classes,
        )
        config.depthwise_padding = _halvings_of_odd_sides(config, image_size if small else math.ceil(image_size / 2))
        whole = EfficientNetForImageClassification(config)
        self.network, self.classifier = whole.efficientnet, nn.Sequential(nn.Dropout(DROPOUT), whole.classifier)
        _start(self.network)
        stem = self.network.embeddings
        if small:
            stem.convolution.stride = (1, 1)
        if small or image_size % 2:
            stem.padding = nn.ZeroPad2d(1)

    def embed(self, images: Tensor) -> Tensor:
        """Return the features averaged over the image."""
        pooled: Tensor = self.network(images).pooler_output
        return pooled


def _halvings_of_odd_sides(config: EfficientNetConfig, side: int) -> list[int]:
    """Return the blocks, by number, that halve a map of odd side: those are padded on both sides, others on one."""
    blocks, number = [], 0
    for stride, repeats in zip(config.strides, config.num_block_repeats, strict=True):
        if stride == 2:
            blocks += [number] if side % 2 else []
            side = math.ceil(side / 2)
        number += repeats
    return blocks


def _start(network: nn.Module) -> None:
    """Initialise convolutions and batch norms in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
            nn.init.ones_(module.weight)
