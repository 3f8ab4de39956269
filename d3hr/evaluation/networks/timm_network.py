"""Networks of the library timm, where it is installed.

Legend: N images, H = W image side, F features.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from d3hr.errors import SettingsError, listed
from d3hr.evaluation.networks.student import Student


class TimmNetwork(Student):
    """A network of timm in its published form, with random weights; up to 64 pixels it halves the image as often as at any side.

    Args:
        num_classes: outputs.
        image_size: side in pixels; networks made for one side are built for this one.
        name: timm's name of it.

    Raises:
        SettingsError: timm is not installed or does not import, has no such network, or the network cannot take such images.
    """

    def __init__(self, num_classes: int, image_size: int, *, name: str) -> None:
        super().__init__()
        timm = _timm(name)
        if not timm.is_model(name):
            raise SettingsError(f"timm has no network {name!r}.", found=_like(timm, name), hint="list them with timm.list_models().")
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
                hint="use another --image_size or another student.",
            ) from error
        self.network, self.classifier = network, nn.Linear(features, num_classes)

    def embed(self, images: Tensor) -> Tensor:
        """Return the features that timm's own classifier would see."""
        features: Tensor = self.network(images)
        return features


def _timm(name: str) -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError) as error:  # torchvision, which timm imports, raises RuntimeError beside another PyTorch
        raise SettingsError(
            f"The student timm:{name} needs the library timm.",
            found=f"{type(error).__name__}: {error}",
            hint="install it with 'pip install timm torchvision', of a torchvision made for your PyTorch, or use another student.",
        ) from error


def _like(timm: Any, name: str) -> str:
    return f"names that begin like it: {listed(timm.list_models(name[:4] + '*')) or 'none'}"
