"""The real images of one class as points: pixels, latents of the prior, or features of a teacher.

Legend: N images, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import check_finite
from d3hr.errors import NumericalError
from d3hr.fileio.atomic import load_if_valid, read_tensors, write_tensors
from d3hr.fileio.staging import lock_workdir
from d3hr.methods.base import Order

Space = Literal["pixel", "latent", "teacher"]
"""``pixel``: pixels at the size of the set. ``latent``: the prior's latents. ``teacher``: what a teacher's classifier sees."""


def class_features(order: Order, space: Space, name: str) -> Tensor:
    """Return float32 [N, F] of the images of one class, in their order.

    Latents and a teacher's features are kept in the shared folder; pixels are read again, which costs less than keeping them.
    """
    if space == "pixel":
        return torch.cat([batch.flatten(1) for batch in order.images.batches(name)])
    images, network, embed = _embedding(order, space)
    key = {"kind": "features", "space": space, "data": images.fingerprint, "image_size": images.image_size, "network": network}
    folder = order.shared_folder(f"features-{space}", key)
    file = folder / f"{images.class_names.index(name):06d}.safetensors"
    with lock_workdir(folder, key, wait=True):
        found = load_if_valid(file, read_tensors, order.progress)
        if found is None:
            features = torch.cat([embed(batch).flatten(1).float().cpu() for batch in images.batches(name)])
            with NumericalError.naming(name):
                check_finite(features, "encoding", f"in its {space} features")
            found = {"features": features}
            write_tensors(file, found)
    return found["features"]


def network_of(order: Order, space: Space) -> dict[str, str]:
    """Return what a manifest tells of the network that ``space`` looks through; nothing for pixels."""
    return {} if space == "pixel" else {"network": _embedding(order, space)[1]}


def _embedding(order: Order, space: Space) -> tuple[ImageData, str, Callable[[Tensor], Tensor]]:
    """Return the images at the size of a space's network, its fingerprint, and what it does to images [n, 3, H, W]."""
    images = order.materials.images
    if space == "latent":
        return images.at_size(order.prior.image_size), order.prior.fingerprint, order.prior.encode
    return images.at_size(order.teacher.image_size), order.teacher.fingerprint, order.teacher.embed
