"""Convolutional students: the ConvNet of the field, residual networks, and networks of depthwise convolutions for mobile devices.

MobileNetV2 and EfficientNet-B0, up to 64 pixels, leave out their first two halvings (that of the stem and that of the first stage that has
one), as the small form of a ResNet does: 32 pixels end in a map of 4 x 4 where the published networks would leave one of 1 x 1. The number
of weights does not change. Padding is TensorFlow's, which rounds half a side up, so that images of any side pass.

Two settings of the library transformers assume that weights are loaded afterwards, and differ here. Its momenta of batch
norm, 0.997 and 0.99, are TensorFlow's share of the old value; PyTorch reads the share of the new one, and a test would see the statistics
of the last batch alone. Here the momentum is 0.1, as in torchvision; the papers' own share of the new value, 0.003 and 0.01, is too slow
for short trainings. Weights start by He's rule (fan out) and scales of batch norms at 1: in transformers the scales of EfficientNet start
near 0, which lets nothing through. The eps of batch norm is the library's 1e-3.

Legend: N images, H = W image side.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from d3hr.evaluation.networks.base import SMALL_IMAGE, PooledStudent, Student, require_side

DROPOUT = 0.2
"""Share of features that MobileNetV2 and EfficientNet-B0 drop before the classifier in training, as in both papers. The default of
transformers for MobileNetV2 is 0.8, the share that is kept; its default for EfficientNet, 0.5, is B7's."""
_MOMENTUM = 0.1
"""Momentum of batch norm in MobileNetV2 and EfficientNet-B0."""
_PIXELS_AT_ONCE = 32 * 32 * 32
"""Pixels that a ConvNet takes at a time on a CPU, 32 images of 32 pixels. No block looks across images, so the features are the same;
memory of this size is used again, where the system would give and take back hundreds of MB per layer at every step."""


class ConvNet(Student):
    """The field's ConvNet (arXiv 2006.05929): blocks of 3x3 convolution, instance norm, ReLU and 2x2 average pool, then one linear layer.

    It has ``depth`` blocks of ``width`` channels, and takes images of at least 2 ** depth pixels a side.
    """

    def __init__(self, num_classes: int, image_size: int, *, depth: int = 3, width: int = 128) -> None:
        super().__init__()
        require_side(image_size, 2**depth, f"{depth} halvings")
        blocks: list[nn.Module] = []
        for index in range(depth):
            # GroupNorm with one channel per group is instance norm with learned scale and shift.
            blocks += [nn.Conv2d(3 if index == 0 else width, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * (image_size // 2**depth) ** 2, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """Return the features of the last block, flattened."""
        count = max(1, _PIXELS_AT_ONCE // images[0, 0].numel()) if images.device.type == "cpu" else len(images)
        return torch.cat([self.features(part) for part in images.split(count)]).flatten(1)


class ResNet(PooledStudent):
    """A ResNet (arXiv 1512.03385) with random weights, He initialisation and batch norm as PyTorch has it (momentum 0.1, eps 1e-5).

    Up to 64 pixels its stem is the 32-pixel form that the field uses, a 3x3 convolution of stride 1 without max-pool. Bottleneck blocks
    halve the image in their 3x3 convolution, as torchvision's do, not in the first 1x1 convolution as in the paper. Images of any side.
    ``depths`` are the blocks of each of the four stages; bottlenecks (ResNet-50 and deeper) have four times the outputs.
    """

    def __init__(self, num_classes: int, image_size: int, *, depths: tuple[int, int, int, int], bottleneck: bool) -> None:
        super().__init__()
        from transformers import ResNetConfig, ResNetForImageClassification

        expansion = 4 if bottleneck else 1
        config = ResNetConfig(
            embedding_size=64,
            hidden_sizes=[expansion * width for width in (64, 128, 256, 512)],
            depths=list(depths),
            layer_type="bottleneck" if bottleneck else "basic",
            downsample_in_bottleneck=False,
            num_labels=num_classes,
        )
        model = ResNetForImageClassification(config)
        self.network, self.classifier = model.resnet, model.classifier[-1]
        if image_size <= SMALL_IMAGE:
            stem = self.network.embedder
            stem.embedder.convolution = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(stem.embedder.convolution.weight, mode="fan_out", nonlinearity="relu")
            stem.pooler = nn.Identity()


class MobileNetV2(PooledStudent):
    """MobileNetV2 of width 1.0 (arXiv 1801.04381) with random weights; the text of this module describes its form at small sides."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

        model = MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=num_classes))
        self.network, self.classifier = model.mobilenet_v2, nn.Sequential(nn.Dropout(DROPOUT), model.classifier)
        _initialise(self.network)
        if image_size <= SMALL_IMAGE:
            self.network.conv_stem.first_conv.convolution.stride = (1, 1)
            self.network.layer[0].conv_3x3.convolution.stride = (1, 1)


class EfficientNetB0(PooledStudent):
    """EfficientNet-B0 (arXiv 1905.11946) with random weights; this module's text describes its form at small sides.

    In training, branches parallel to a shortcut lose up to a fifth of their values (``drop_connect_rate`` 0.2, the library's default,
    growing with depth); the library drops values, where the paper drops whole branches of an image.
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
        model = EfficientNetForImageClassification(config)
        self.network, self.classifier = model.efficientnet, nn.Sequential(nn.Dropout(DROPOUT), model.classifier)
        _initialise(self.network)
        stem = self.network.embeddings
        if small:
            stem.convolution.stride = (1, 1)
        if small or image_size % 2:
            stem.padding = nn.ZeroPad2d(1)


def _halvings_of_odd_sides(config: Any, side: int) -> list[int]:
    """Return the blocks, by number, that halve a map of odd side: those are padded on both sides, others on one."""
    blocks, number = [], 0
    for stride, repeats in zip(config.strides, config.num_block_repeats, strict=True):
        if stride == 2:
            blocks += [number] if side % 2 else []
            side = math.ceil(side / 2)
        number += repeats
    return blocks


def _initialise(network: nn.Module) -> None:
    """Initialise convolutions and batch norms in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = _MOMENTUM
            nn.init.ones_(module.weight)
