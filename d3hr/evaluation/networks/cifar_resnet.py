"""The residual networks of He et al. (arXiv 1512.03385, section 4.2) for CIFAR: ResNet-20, 32, 44 and 56, which are thin and small.

Modules are called as in the common implementations: ``conv1``, ``bn1``, ``layer1.0.conv1``, ..., and our ``classifier``.

Legend: N images, H = W image side, F features, W width (channels) of a stage.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.evaluation.networks.base import Student

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut without weights (option A of the paper).

    Where the width doubles the shortcut takes every second pixel, and pads the channels with zeros, as many before as behind.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.stride, self.padding = (1, 0) if inputs == width else (2, (width - inputs) // 2)
        self.conv1 = nn.Conv2d(inputs, width, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps [N, W, H', W'] of maps [N, inputs, H, W]; sides are halved, rounded up, where the width doubles."""
        shortcut = F.pad(maps[..., :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        inner = torch.relu(self.bn1(self.conv1(maps)))
        return torch.relu(self.bn2(self.conv2(inner)) + shortcut)


class CifarResNet(Student):
    """A ResNet of 6 ``blocks`` + 2 layers: a 3x3 stem, three stages of ``blocks`` blocks, an average over the image, a linear layer.

    Convolutions have no bias and start by He's rule (fan out). It takes images of any side.
    """

    def __init__(self, num_classes: int, image_size: int, *, blocks: int) -> None:
        super().__init__()
        del image_size  # the same network at any side
        self.conv1, self.bn1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, 1):
            self.add_module(f"layer{stage}", nn.Sequential(*(BasicBlock(width if block else inputs, width) for block in range(blocks))))
            inputs = width
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, images: Tensor) -> Tensor:
        """Return the 64 features [N, F], averaged over the image."""
        maps = torch.relu(self.bn1(self.conv1(images)))
        for stage in range(1, len(WIDTHS) + 1):
            maps = self.get_submodule(f"layer{stage}")(maps)
        return maps.mean(dim=(2, 3))
