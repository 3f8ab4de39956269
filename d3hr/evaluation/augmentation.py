"""Augments a batch of training images: translates or crops and flips them, then mixes them in pairs.

All randomness comes from torch's global generator, which the training seeds for each step, on the CPU: where kornia draws, it is not asked
to apply what it drew, since it looks for the images that are chosen, which a GPU waits for. The pictures are the same as kornia's.

Legend: N images of a batch, H = W image side, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Mixed:
    """A batch of images [N, 3, H, W], each mixed with a partner of the same batch."""

    images: Tensor
    partners: Tensor
    """Position in the batch of each image's partner, int64 [N]."""
    shares: Tensor
    """Share of each image itself, 0 to 1, float [N]; the rest is its partner's."""

    def targets(self, rows: Tensor) -> Tensor:
        """Return the target probabilities [N, C] of the mixed images, from those of the single images, ``rows`` [N, C].

        Cross-entropy is linear in its targets, so it becomes ``shares * CE(own) + (1 - shares) * CE(partner)``.
        """
        shares = self.shares[:, None]
        return shares * rows + (1 - shares) * rows[self.partners]


Mix = Callable[[Tensor], Mixed]
"""From images [N, 3, H, W] to the same images, mixed in pairs."""


def augmentation(protocol: Protocol, image_size: int) -> nn.Module:
    """Return a module that translates or crops and flips each image of a batch [N, 3, H, W] independently, as the protocol says.

    Where it crops, images of any side become images of side ``image_size``, antialiased where they shrink.
    """
    from kornia.augmentation import RandomCrop

    size = (image_size, image_size)
    steps: list[nn.Module] = []
    if protocol.shift:
        steps.append(RandomCrop(size, padding=round(protocol.shift * image_size), padding_mode="replicate"))
    if protocol.crop_scale is not None:
        steps.append(_ResizedCrop(image_size, protocol.crop_scale))
    if protocol.flip:
        steps.append(_Flip())
    return nn.Sequential(*steps)


def mixing(protocol: Protocol) -> Mix:
    """Return a function that mixes the images of a batch in pairs, as the protocol says."""
    if protocol.mix == "none":
        return lambda images: Mixed(images, _positions(images), torch.ones(len(images), device=images.device))
    if protocol.mix == "cutmix":
        return _cutmix
    from kornia.augmentation import RandomMixUpV2

    mixer = RandomMixUpV2(data_keys=["input", "class"])  # the uniform share of mixup is Beta(1, 1)

    def mix(images: Tensor) -> Mixed:
        drawn = mixer.forward_parameters(images.shape)
        partners, foreign = drawn["mixup_pairs"].to(images.device), drawn["mixup_lambdas"].to(images)
        shares = 1 - foreign
        return Mixed(_each(shares) * images + _each(foreign) * images.index_select(0, partners), partners, shares)

    return mix


def _each(values: Tensor) -> Tensor:
    """Return a value for each image, [N], as [N, 1, 1, 1]."""
    return values[:, None, None, None]


def _cutmix(images: Tensor) -> Mixed:
    """Mix images [N, 3, H, W] by one rectangle, algorithm 1 of arXiv 1905.04899 with the rectangle's area from Beta(1, 1)."""
    side = images.shape[-1]
    area, down, right = torch.rand(3).tolist()
    half = round(area**0.5 * side) / 2
    top, bottom, left, end = (min(max(round(at * side + move), 0), side) for at in (down, right) for move in (-half, half))
    partners = torch.randperm(len(images)).to(images.device)
    mixed = images.clone()
    mixed[..., top:bottom, left:end] = images[..., top:bottom, left:end].index_select(0, partners)
    share = 1 - (bottom - top) * (end - left) / side**2
    return Mixed(mixed, partners, torch.full((len(images),), share, device=images.device))


class _Flip(nn.Module):
    """Mirrors each image with a probability of a half."""

    def __init__(self) -> None:
        from kornia.augmentation import RandomHorizontalFlip

        super().__init__()
        self._flip = RandomHorizontalFlip()

    def forward(self, images: Tensor) -> Tensor:
        """Return images [N, 3, H, W], some of them mirrored."""
        chosen = (self._flip.forward_parameters(images.shape)["batch_prob"] > 0.5).to(images.device)
        return torch.where(_each(chosen), images.flip(-1), images)


class _ResizedCrop(nn.Module):
    """Crops a random rectangle, as torchvision's RandomResizedCrop chooses it, out of each image and resizes it, antialiased."""

    def __init__(self, side: int, scale: tuple[float, float]) -> None:
        from kornia.augmentation import RandomResizedCrop

        super().__init__()
        self.side, self._crop = side, RandomResizedCrop((side, side), scale=scale)

    def forward(self, images: Tensor) -> Tensor:
        """Return images [N, 3, side, side] of images [N, 3, H, W]."""
        corners = self._crop.forward_parameters(images.shape)["src"].long()  # [N, 4, 2], x and y, clockwise from the top left, inclusive
        boxes = torch.cat([corners[:, 0], corners[:, 2] + 1], dim=1).tolist()
        return torch.cat(
            [
                F.interpolate(image[None, :, top:bottom, left:right], (self.side, self.side), mode="bilinear", antialias=True)
                for image, (left, top, right, bottom) in zip(images, boxes, strict=True)
            ]
        )


def _positions(images: Tensor) -> Tensor:
    return torch.arange(len(images), device=images.device)
