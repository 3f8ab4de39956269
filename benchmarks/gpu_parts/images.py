"""The real images that a prior is fitted to, and that sets of it are tested on."""

from __future__ import annotations

from benchmarks.gpu_parts.worker import Job
from benchmarks.real_data import real_data
from d3hr import ImageData, load_images


def images_of(job: Job, split: str) -> ImageData:
    """Return the images of a split, a part of each class where the scale asks for it."""
    images = load_images(job.data or str(real_data("cifar10")), split=split)
    if job.scale.per_class is None:
        return images
    return images.only({name: range(min(job.scale.per_class, count)) for name, count in images.counts.items()}, "the first")
