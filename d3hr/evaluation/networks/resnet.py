"""Residual networks.

Legend: N images, H = W image side.
"""

from __future__ import annotations

from torch import Tensor, nn

from d3hr.evaluation.networks.student import SMALL_IMAGE, Student


class ResNet(Student):
    """A ResNet (arXiv 1512.03385) with random weights, He initialisation and batch norm as PyTorch has it (momentum 0.1, eps 1e-5).

    Up to 64 pixels its stem is the 32-pixel form that the field uses, a 3x3 convolution of stride 1 without max-pool. Bottleneck blocks
    halve the image in their 3x3 convolution, as torchvision's do, not in the first 1x1 convolution as in the paper. Images of any side.

    Args:
        num_classes: outputs.
        image_size: side in pixels.
        depths: blocks of each of the four stages.
        bottleneck: whether blocks are bottlenecks (ResNet-50 and deeper), which have four times the outputs.
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
