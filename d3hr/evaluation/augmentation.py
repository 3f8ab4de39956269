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
    """A batch of images, each mixed with a partner of the same batch.

    Attributes:
        images: the mixed images [N, 3, H, W].
        partners: position in the batch of each image's partner, int64 [N].
        shares: share of each image itself, 0 to 1, float [N]; the rest is its partner's.
    """

    images: Tensor
    partners: Tensor
    shares: Tensor

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
    return {"none": lambda: _unmixed, "mixup": _mixup, "cutmix": _cutmix}[protocol.mix]()


def _unmixed(images: Tensor) -> Mixed:
    return Mixed(images, _positions(images), torch.ones(len(images), device=images.device))


def _mixup() -> Mix:
    from kornia.augmentation import RandomMixUpV2

    mixer = RandomMixUpV2(data_keys=["input", "class"])  # its uniform share is Beta(1, 1)

    def mix(images: Tensor) -> Mixed:
        mixed, rows = mixer(images, _positions(images))
        _, partners, partner_shares = rows.unbind(dim=1)
        return Mixed(mixed, partners.long(), 1 - partner_shares)

    return mix


def _cutmix() -> Mix:
    from kornia.augmentation import RandomCutMixV2

    mixer = RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)

    def mix(images: Tensor) -> Mixed:
        mixed, rows = mixer(images, _positions(images))
        _, partners, shares = rows[0].unbind(dim=1)
        return Mixed(mixed, partners.long(), shares)

    return mix


def _positions(images: Tensor) -> Tensor:
    """Return the position of each image in its batch, int64 [N]; kornia mixes it along with the image, as if it were a class."""
    return torch.arange(len(images), device=images.device)
