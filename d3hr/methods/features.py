"""The real images of one class as points: pixels, latents of the prior, or features of a teacher.

Legend: N images, F features.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import check_finite
from d3hr.errors import NumericalError
from d3hr.methods.job import Job

Space = Literal["pixel", "latent", "teacher"]
"""``pixel``: pixels at the size of the set. ``latent``: the prior's latents. ``teacher``: what a teacher's classifier sees."""


def class_features(job: Job, space: Space, name: str) -> Tensor:
    """Return float32 [N, F] of the images of one class, in their order.

    Latents and a teacher's features are kept in the shared folder; pixels are read again, which costs less than keeping them.
    """
    if space == "pixel":
        return torch.cat([batch.flatten(1) for batch in job.images.batches(name)])
    images, network, embed = _embedding(job, space)
    key = {"kind": "features", "space": space, "data": images.fingerprint, "image_size": images.image_size, "network": network}

    def compute() -> dict[str, Tensor]:
        features = torch.cat([embed(batch).flatten(1).float().cpu() for batch in images.batches(name)])
        with NumericalError.naming(name):
            check_finite(features, "encoding", f"in its {space} features")
        return {"features": features}

    return job.shared_tensors(f"features-{space}", key, name, compute)["features"]


def network_of(job: Job, space: Space) -> dict[str, str]:
    """Return the fingerprint, for a manifest, of the network that ``space`` looks through; nothing for pixels."""
    return {} if space == "pixel" else {"network": _embedding(job, space)[1]}


def _embedding(job: Job, space: Space) -> tuple[ImageData, str, Callable[[Tensor], Tensor]]:
    """Return the images at the size of a space's network, its fingerprint, and what it does to images [n, 3, H, W]."""
    images = job.inputs.images
    if space == "latent":
        return images.at_size(job.prior.image_size), job.prior.fingerprint, job.prior.encode
    return images.at_size(job.teacher.image_size), job.teacher.fingerprint, job.teacher.embed
