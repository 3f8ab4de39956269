"""The networks that learn from a distilled set, by name: d3hr's own, and any network of the library timm, where that is installed.

Legend: N images, H = W image side, F features.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from d3hr.errors import SettingsError, listed
from d3hr.evaluation.networks.attention import SwinTiny, ViTTiny
from d3hr.evaluation.networks.base import Student
from d3hr.evaluation.networks.cifar_resnet import CifarResNet
from d3hr.evaluation.networks.convolutional import ConvNet, EfficientNetB0, MobileNetV2, ResNet

__all__ = ["STUDENTS", "Student", "new_student"]

_TIMM = "timm:"

_BUILDERS: dict[str, Callable[[int, int], Student]] = {
    **{f"convnet{depth}": partial(ConvNet, depth=depth) for depth in range(1, 10)},
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2), bottleneck=False),
    "resnet50": partial(ResNet, depths=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, depths=(3, 4, 23, 3), bottleneck=True),
    **{f"resnet{6 * blocks + 2}": partial(CifarResNet, blocks=blocks) for blocks in (3, 5, 7, 9)},
    "mobilenetv2": MobileNetV2,
    "efficientnet-b0": EfficientNetB0,
    "vit-t": ViTTiny,
    "swin-t": SwinTiny,
}

STUDENTS = tuple(_BUILDERS)
"""Names of the students that need no further library."""


def new_student(name: str, num_classes: int, image_size: int) -> Student:
    """Return an untrained student: one of :data:`STUDENTS`, or ``timm:NAME`` for a network of timm, where that is installed.

    It takes images [N, 3, H, W] in [-1, 1] to logits [N, classes]. PyTorch's global random numbers decide its weights.
    An unknown name, images that are too small, and a missing timm are each a ``SettingsError``.
    """
    if name.startswith(_TIMM):
        return TimmNetwork(num_classes, image_size, name=name.removeprefix(_TIMM))
    if name not in _BUILDERS:
        raise SettingsError(
            "Unknown student.", found=repr(name), hint=f"use one of {', '.join(STUDENTS)}, or {_TIMM}NAME with timm installed."
        )
    return _BUILDERS[name](num_classes, image_size)


class TimmNetwork(Student):
    """A network of timm in its published form, with random weights; up to 64 pixels it halves the image as often as at any side.

    Networks that are made for one side are built for ``image_size``.
    """

    def __init__(self, num_classes: int, image_size: int, *, name: str) -> None:
        super().__init__()
        timm = _import_timm(name)
        if not timm.is_model(name):
            similar = listed(timm.list_models(name[:4] + "*")) or "none"
            raise SettingsError(
                f"timm has no network {name!r}.", found=f"names that begin like it: {similar}", hint="list them with timm.list_models()."
            )
        try:
            network = timm.create_model(name, pretrained=False, num_classes=0)
            if network.pretrained_cfg.get("fixed_input_size"):
                network = timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size)
            network.eval()
            with torch.no_grad():
                features = network(torch.zeros(1, 3, image_size, image_size)).shape[1]
            network.train()
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise SettingsError(
                f"timm:{name} cannot be built for images of {image_size} pixels.",
                found=f"{type(error).__name__}: {error}",
                hint="use another --image-size or another student.",
            ) from error
        self.network, self.classifier = network, nn.Linear(features, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """Return the features that timm's own classifier would see."""
        return torch.as_tensor(self.network(images))


def _import_timm(name: str) -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError) as error:  # torchvision, which timm imports, raises RuntimeError with another PyTorch
        raise SettingsError(
            f"The student timm:{name} needs the library timm.",
            found=f"{type(error).__name__}: {error}",
            hint="install it with 'pip install timm torchvision', of a torchvision made for your PyTorch, or use another student.",
        ) from error
