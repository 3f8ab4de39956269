"""Real images as they are: a choice of each class's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.mixture import k_means_centres
from d3hr.methods.base import MethodSettings, Need, Order, manifest_of_real, require_images_per_class, require_real_images, write_baseline
from d3hr.methods.coresets import farthest_order, herding_order, medoids
from d3hr.methods.features import Space, class_features, network_of
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed, generator_for
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.manifest import Manifest

_NEEDS: dict[Space, frozenset[Need]] = {"pixel": frozenset(), "latent": frozenset({"prior"}), "teacher": frozenset({"teacher"})}


class SelectionSettings(MethodSettings):
    """Settings of a choice by distances."""

    space: Space = "pixel"
    """Where distances are measured."""

    @property
    def needs(self) -> frozenset[Need]:
        """The network that the space looks through."""
        return _NEEDS[self.space]


def random_real(
    images: ImageData, out: str | Path, *, ipc: int, image_size: int, seed: int = 0, progress: Progress = SILENT
) -> DistilledSet:
    """Draw ``ipc`` real images of each class without replacement.

    Args:
        images: the real images.
        out: folder to write.
        ipc: images per class.
        image_size: side in pixels.
        seed: seed of the draw; a class's images depend on it and on the class's name.
        progress: where to report.

    Raises:
        DataError: a class has fewer than ``ipc`` images.
        OutputError: ``out`` holds something else.
    """

    def choose(name: str) -> Tensor:
        return torch.randperm(images.counts[name], generator=generator_for(seed, "random_real", name))[:ipc]

    require_images_per_class(ipc)
    sized = images.at_size(image_size)
    return _write_choice(out, manifest_of_real("random_real", sized, ipc=ipc, settings={"seed": seed}), sized, choose, progress)


def write_random_real(order: Order, settings: MethodSettings) -> DistilledSet:
    """Write :func:`random_real`."""
    materials = order.materials
    return random_real(
        materials.images, order.out, ipc=order.ipc, image_size=materials.image_size, seed=order.seed, progress=order.progress
    )


def write_herding(order: Order, settings: SelectionSettings) -> DistilledSet:
    """Write :func:`~d3hr.methods.coresets.herding_order` of each class; no seed decides anything."""
    return _write_greedy(order, settings, herding_order)


def write_k_center(order: Order, settings: SelectionSettings) -> DistilledSet:
    """Write :func:`~d3hr.methods.coresets.farthest_order` of each class; no seed decides anything."""
    return _write_greedy(order, settings, farthest_order)


def write_k_means(order: Order, settings: SelectionSettings) -> DistilledSet:
    """Write the :func:`~d3hr.methods.coresets.medoids` of k-means with a centre for each image to choose."""

    def choose(name: str) -> list[int]:
        features = class_features(order, settings.space, name)
        return medoids(features, k_means_centres(features, order.ipc, derive_seed(order.seed, "k_means", name)))

    values = {"seed": order.seed, "space": settings.space, **network_of(order, settings.space)}
    manifest = manifest_of_real(order.method, order.images, ipc=order.ipc, settings=values)
    return _write_choice(order.out, manifest, order.images, choose, order.progress)


def _write_greedy(order: Order, settings: SelectionSettings, first: Callable[[Tensor, int], list[int]]) -> DistilledSet:
    # The seed stays out of the key: sets of all seeds are one set.
    values = {"space": settings.space, **network_of(order, settings.space)}
    manifest = manifest_of_real(order.method, order.images, ipc=order.ipc, settings=values)

    def choose(name: str) -> list[int]:
        return first(class_features(order, settings.space, name), order.ipc)

    return _write_choice(order.out, manifest, order.images, choose, order.progress)


def _write_choice(
    out: str | Path, manifest: Manifest, images: ImageData, choose: Callable[[str], Sequence[int] | Tensor], progress: Progress
) -> DistilledSet:
    """Write the images of each class whose places in it ``choose`` gives."""
    require_real_images(images, manifest.ipc)
    return write_baseline(out, manifest, lambda name: images.pick(name, choose(name)), progress)
