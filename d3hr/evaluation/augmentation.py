"""Changes images on their way into a student: moved, mirrored, then mixed in pairs.

All randomness comes from torch's global generator, which the training seeds. Legend: N images of a batch, H = W image side, C classes.
"""

from __future__ import annotations

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
        partners: position in the batch of what was mixed in, int64 [N].
        shares: what is left of an image itself, 0 to 1, [N].
    """

    images: Tensor
    partners: Tensor
    shares: Tensor

    def targets(self, rows: Tensor) -> Tensor:
        """Return the probabilities [N, C] of the mixed images, of the probabilities [N, C] of the images apart.

        Cross-entropy is linear in them: it is ``shares * CE(own) + (1 - shares) * CE(partner)``.
        """
        kept = self.shares[:, None]
        return kept * rows + (1 - kept) * rows[self.partners]


Mix = Callable[[Tensor], Mixed]
"""Images [N, 3, H, W] to the same, mixed in pairs."""


def augmentation(protocol: Protocol, image_size: int) -> nn.Module:
    """Return a module that moves and mirrors each image [N, 3, H, W] of a batch on its own, as the protocol says."""
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
    return Mixed(images, _places(images), torch.ones(len(images), device=images.device))


def _mixup() -> Mix:
    from kornia.augmentation import RandomMixUpV2

    mixer = RandomMixUpV2(data_keys=["input", "class"])  # its uniform share is Beta(1, 1)

    def mix(images: Tensor) -> Mixed:
        mixed, rows = mixer(images, _places(images))
        _, partners, taken = rows.unbind(dim=1)
        return Mixed(mixed, partners.long(), 1 - taken)

    return mix


def _cutmix() -> Mix:
    from kornia.augmentation import RandomCutMixV2

    mixer = RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)

    def mix(images: Tensor) -> Mixed:
        mixed, rows = mixer(images, _places(images))
        _, partners, kept = rows[0].unbind(dim=1)
        return Mixed(mixed, partners.long(), kept)

    return mix


def _places(images: Tensor) -> Tensor:
    """Return the position of each image in its batch, which kornia carries along as if it were a class."""
    return torch.arange(len(images), device=images.device)
