"""The real images of one class as points, for choices by distances: pixels, latents of the prior, or features of a teacher.

Legend: N images, F features.
"""

import torch
from torch import Tensor

from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import Space
from d3hr.methods.job import Job
from d3hr.selection.features import Features


def class_features(job: Job, space: Space, name: str) -> Tensor:
    """Return float32 [N, F] of the images of one class, in their order.

    They are pixels at the size of the set, clean latents, or what a teacher's classifier sees. Latents and a teacher's features are kept
    in the shared folder; pixels are read again, which costs less than keeping them.
    """
    if space == "pixel":
        return torch.cat([batch.flatten(1) for batch in job.images.batches(name)])
    settings, inputs = distill_settings("real", space=space), job.inputs
    return Features(inputs.images, settings, {}, inputs.prior, inputs.teacher, job.shared, job.progress).of(name).float()


def network_of(job: Job, space: Space) -> dict[str, str]:
    """Return the fingerprint, for a manifest, of the network that ``space`` looks through; nothing for pixels."""
    networks = {"latent": job.inputs.prior, "teacher": job.inputs.teacher}
    return {"network": network.fingerprint} if (network := networks.get(space)) else {}
