"""Patches of real images that a teacher takes for their class without doubt, tiled to images (after RDED, arXiv 2312.03526, section 4).

Legend: N images, R crops of each, C classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from d3hr.data.codec import resized
from d3hr.data.dataset import ImageData
from d3hr.distillation.settings import Network
from d3hr.errors import DataError, SettingsError, listed
from d3hr.evaluation.teachers import Teacher
from d3hr.methods.base import MethodSettings
from d3hr.methods.job import Job, MethodInputs
from d3hr.seeds import generator_for
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.packing import pack

_BATCH = 64
"""Images that are read at once."""


class PatchSettings(MethodSettings):
    """Settings of cropping and tiling."""

    factor: int = Field(default=2, ge=1)
    """Patches along each side of an image."""
    crops: int = Field(default=5, ge=1)
    """Random square crops of each real image."""
    smallest: float = Field(default=0.25, gt=0, le=1)
    """Smallest share of the image's area that a crop has; the largest is all of it. At 1 / factor^2 a patch keeps the resolution."""

    @property
    def needs(self) -> frozenset[Network]:
        """A teacher."""
        return frozenset({"teacher"})

    def check(self, inputs: MethodInputs) -> None:
        """Refuse a side that does not split, and a teacher of other classes."""
        assert inputs.teacher is not None
        if inputs.image_size % self.factor:
            raise SettingsError(
                "The image does not split into patches of whole pixels.",
                found=f"{inputs.image_size} pixels, factor {self.factor}",
                hint="use a factor, or an --image-size, that fits.",
            )
        inputs.teacher.require_classes(inputs.images.class_names, inputs.images.source)


def write_patches(job: Job, settings: PatchSettings) -> DistilledSet:
    """Write images of factor x factor patches: those of the lowest loss of the teacher for the true class.

    Each real image first gives its best crop, in the order of the loss; their second best follow only when all images have given one.
    Crops follow from the seed and the class's name, so that more images per class contain the fewer.
    """
    images, wanted = job.images, job.ipc * settings.factor**2
    small = [f"{name} ({count * settings.crops})" for name, count in images.counts.items() if count * settings.crops < wanted]
    if small:
        raise DataError(
            f"Some classes have fewer than {wanted} crops to choose from.", found=listed(small), hint="use a lower --ipc, or more crops."
        )
    values = {"seed": job.seed, **settings.model_dump(), "teacher": job.teacher.fingerprint}
    side = images.image_size // settings.factor

    def images_of(name: str) -> Tensor:
        boxes, losses = _scored_crops(job, settings, name)
        best = torch.from_numpy(best_first(losses.numpy())[:wanted])
        rows, chosen = best // settings.crops, boxes.flatten(0, 1)[best]
        patches = [
            cropped(image, box, side)
            for places, part in zip(rows.split(_BATCH), chosen.split(_BATCH), strict=True)
            for image, box in zip(images.pick(name, places), part, strict=True)
        ]
        return pack(torch.stack(patches), settings.factor)

    return job.write(images_of, values)


def crop_boxes(count: int, crops: int, image_size: int, smallest: float, generator: torch.Generator) -> Tensor:
    """Return (top, left, side) int64 [N, R, 3] of square crops: shares of the area even in [smallest, 1], places even in the image."""
    share, down, right = torch.rand(count, crops, 3, generator=generator, dtype=torch.float64).unbind(-1)
    sides = (image_size * (smallest + (1 - smallest) * share).sqrt()).round().clamp(min=1)
    room = image_size - sides + 1
    return torch.stack([(down * room).floor(), (right * room).floor(), sides], dim=-1).long()


def best_first(losses: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the places 0 to N * R - 1 of crops of losses [N, R]: the best of each image by loss, then the second best of each, ..."""
    turn = losses.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.lexsort((losses.ravel(), turn.ravel()))


def cropped(image: Tensor, box: Tensor, side: int) -> Tensor:
    """Return the crop (top, left, side) of an image [3, H, W], resized to [3, side, side]."""
    top, left, extent = box.tolist()
    crop = image[None, :, top : top + extent, left : left + extent]
    return resized(crop, side)[0]


def _scored_crops(job: Job, settings: PatchSettings, name: str) -> tuple[Tensor, Tensor]:
    """Return boxes [N, R, 3] and losses [N, R] of a class: those that another set of the same seed left in the shared folder, or new."""
    images, teacher = job.images, job.teacher
    key = {
        "kind": "patches",
        "data": images.fingerprint,
        "image_size": images.image_size,
        "teacher": teacher.fingerprint,
        "crops": settings.crops,
        "smallest": settings.smallest,
        "seed": job.seed,
    }

    def compute() -> dict[str, Tensor]:
        generator = generator_for(job.seed, "patches", name)
        boxes = crop_boxes(images.counts[name], settings.crops, images.image_size, settings.smallest, generator)
        return {"boxes": boxes, "losses": _losses(images, teacher, name, boxes)}

    tensors = job.shared_tensors("patches", key, name, compute)
    return tensors["boxes"], tensors["losses"]


def _losses(images: ImageData, teacher: Teacher, name: str, boxes: Tensor) -> Tensor:
    """Return the cross-entropy float32 [N, R] of the teacher for the true class of every crop."""
    label, losses, done = torch.tensor([teacher.class_names.index(name)]), list[Tensor](), 0
    for batch in images.batches(name):
        mine = boxes[done : done + len(batch)]
        crops = [cropped(image, box, teacher.image_size) for image, row in zip(batch, mine, strict=True) for box in row]
        logits = teacher.logits(torch.stack(crops)).float()
        losses.append(F.cross_entropy(logits, label.expand(len(logits)), reduction="none").view(len(batch), -1))
        done += len(batch)
    return torch.cat(losses).cpu()
