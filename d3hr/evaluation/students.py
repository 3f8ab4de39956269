"""The networks that learn from a distilled set, by name.

Legend: N images, H = W image side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from d3hr.errors import SettingsError
from d3hr.evaluation.networks.attention import SwinTiny, ViTTiny
from d3hr.evaluation.networks.convnet import ConvNet
from d3hr.evaluation.networks.mobile import EfficientNetB0, MobileNetV2
from d3hr.evaluation.networks.resnet import ResNet
from d3hr.evaluation.networks.student import Student
from d3hr.evaluation.networks.timm_network import TimmNetwork

__all__ = ["STUDENTS", "Student", "new_student"]

_TIMM = "timm:"

_BUILDERS: dict[str, Callable[[int, int], Student]] = {
    **{f"convnet{depth}": partial(ConvNet, depth=depth) for depth in range(1, 10)},
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2), bottleneck=False),
    "resnet50": partial(ResNet, depths=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, depths=(3, 4, 23, 3), bottleneck=True),
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

    Raises:
        SettingsError: the name is unknown, the images are too small, or timm is missing.
    """
    if name.startswith(_TIMM):
        return TimmNetwork(num_classes, image_size, name=name.removeprefix(_TIMM))
    if name not in _BUILDERS:
        raise SettingsError(
            "Unknown student.", found=repr(name), hint=f"use one of {', '.join(STUDENTS)}, or {_TIMM}NAME with timm installed."
        )
    return _BUILDERS[name](num_classes, image_size)
