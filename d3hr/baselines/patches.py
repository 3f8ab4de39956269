"""Patches of real images that a teacher finds most realistic, tiled into images, after RDED (arXiv 2312.03526).

Legend: N candidate images, R crops an image, f patches a side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from d3hr.baselines.materials import Materials
from d3hr.errors import DataError, SettingsError, listed
from d3hr.seeds import derive_seed, generator_for

_AT_ONCE = 64
SCALE = (0.25, 1.0)
"""Smallest and largest share of an image's area that a crop takes."""


def check_patches(materials: Materials, ipc: int, factor: int, crops: int, candidates: int) -> None:
    """Refuse what cannot be tiled.

    Raises:
        SettingsError: a number is out of range, or the tiles do not fill the side.
        DataError: a class has too few images for the patches.
    """
    if min(factor, crops, candidates) < 1 or materials.image_size % factor:
        raise SettingsError(
            "Patches cannot be tiled like this.",
            found=f"factor {factor}, crops {crops}, candidates {candidates}, images of {materials.image_size} pixels",
            do="give positive numbers, and a factor that divides the side.",
        )
    needed = ipc * factor**2
    small = [f"{name} ({count})" for name, count in materials.images.counts.items() if min(count, candidates) * crops < needed]
    if small:
        raise DataError(
            f"Some classes give fewer than {needed} patches.", found=listed(small), do="use a lower --ipc or factor, or more crops."
        )


def tiled_patches(materials: Materials, class_name: str, *, ipc: int, factor: int, crops: int, candidates: int, seed: int) -> Tensor:
    """Return images float [ipc, 3, H, W] in [-1, 1] of one class, each of factor x factor patches.

    Of at most ``candidates`` random images of the class, ``crops`` random crops each are judged by the teacher's cross-entropy with
    the class: lower is more realistic. Every image's best crop comes before any image's second, and among those the more realistic first.

    Args:
        materials: real images and teacher.
        class_name: the class.
        ipc: images per class.
        factor: f.
        crops: R.
        candidates: most images that are looked at.
        seed: seed of candidates and crops.
    """
    teacher, images = materials.require_teacher(), materials.images
    label, names = teacher.class_names.index(class_name), images.class_names
    sized, start = images.at_size(materials.image_size), sum(images.counts[name] for name in names[: names.index(class_name)])
    order = torch.randperm(images.counts[class_name], generator=generator_for(seed, "patches", class_name))[:candidates]
    best: list[tuple[int, float, Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "crops", class_name))
        for positions in (start + order).split(_AT_ONCE):
            found = _crops(sized.gather(positions)[0], materials.image_size, crops)
            logits = teacher.logits(found.flatten(0, 1))
            losses = F.cross_entropy(logits, torch.full((len(logits),), label), reduction="none").view(len(positions), crops)
            for image, ranks in enumerate(losses.argsort(dim=1).tolist()):
                best += [(rank, float(losses[image, crop]), found[image, crop]) for rank, crop in enumerate(ranks)]
    best.sort(key=lambda patch: patch[:2])
    chosen = torch.stack([patch for _, _, patch in best[: ipc * factor**2]])
    side = materials.image_size // factor
    small = F.interpolate(chosen, (side, side), mode="bilinear", antialias=True)
    # Spread the most realistic patches over the images, so that each has some of them.
    tiles = small.view(factor, factor, ipc, 3, side, side)
    return tiles.permute(2, 3, 0, 4, 1, 5).reshape(ipc, 3, materials.image_size, materials.image_size)


def _crops(images: Tensor, image_size: int, crops: int) -> Tensor:
    """Return random crops [N, R, 3, H, W] of images [N, 3, H, W], resized to the whole side."""
    from kornia.augmentation import RandomResizedCrop

    crop = RandomResizedCrop((image_size, image_size), scale=SCALE, align_corners=False)
    return torch.stack([crop(images) for _ in range(crops)], dim=1)
