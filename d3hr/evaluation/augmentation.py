"""Augments a batch of training images: translates or crops and flips them, then mixes them in pairs.

All randomness comes from torch's global generator, which the training seeds for each step.

Legend: N images of a batch, H = W image side, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
    """Return a module that translates or crops and flips each image of a batch [N, 3, H, W] independently, as the protocol says."""
    from kornia.augmentation import RandomCrop, RandomHorizontalFlip, RandomResizedCrop

    size = (image_size, image_size)
    steps: list[nn.Module] = []
    if protocol.shift:
        steps.append(RandomCrop(size, padding=round(protocol.shift * image_size), padding_mode="replicate"))
    if protocol.crop_scale is not None:
        steps.append(RandomResizedCrop(size, scale=protocol.crop_scale, align_corners=False))
    if protocol.flip:
        steps.append(RandomHorizontalFlip())
    return nn.Sequential(*steps)


def mixing(protocol: Protocol) -> Mix:
    """Return a function that mixes the images of a batch in pairs, as the protocol says."""
    if protocol.mix == "none":
        return lambda images: Mixed(images, _positions(images), torch.ones(len(images), device=images.device))
    from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

    cutmix, keys = protocol.mix == "cutmix", ["input", "class"]
    # The uniform share of mixup is Beta(1, 1).
    mixer = RandomCutMixV2(data_keys=keys, use_correct_lambda=True) if cutmix else RandomMixUpV2(data_keys=keys)

    def mix(images: Tensor) -> Mixed:
        # kornia mixes the positions along with the images, as if they were classes: rows of own, partner's, and share.
        mixed, rows = mixer(images, _positions(images))
        _, partners, shares = rows.reshape(-1, 3).unbind(dim=1)
        return Mixed(mixed, partners.long(), shares if cutmix else 1 - shares)  # mixup's share is that of the partner

    return mix


def _positions(images: Tensor) -> Tensor:
    return torch.arange(len(images), device=images.device)
