"""Changes images on their way into a student: moved, mirrored, then mixed in pairs.

All randomness comes from torch's global generator, which the training seeds. Legend: N images of a batch, H = W image side,
C classes.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.evaluation.protocols import Protocol

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images [N, 3, H, W] with labels, int64 [N], to images [N, 3, H, W] with targets, int64 [N] or probabilities [N, C]: cross-entropy
takes either."""


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


def mixing(protocol: Protocol, num_classes: int) -> Mix:
    """Return a function that mixes the images of a batch in pairs, as the protocol says."""
    return {"none": _unmixed, "mixup": _mixup, "cutmix": _cutmix}[protocol.mix](num_classes)


def mixed_targets(labels: Tensor, partners: Tensor, shares: Tensor, num_classes: int) -> Tensor:
    """Return probabilities [N, C] of images that keep a share of their own class and take the rest from a partner's.

    Cross-entropy is linear in them: it is ``shares * CE(labels) + (1 - shares) * CE(partners)``.

    Args:
        labels: int64 [N].
        partners: int64 [N], classes of the images mixed in.
        shares: [N], 0 to 1.
        num_classes: C.
    """
    kept = shares[:, None]
    return kept * F.one_hot(labels, num_classes) + (1 - kept) * F.one_hot(partners, num_classes)


def _unmixed(_: int) -> Mix:
    return lambda images, labels: (images, labels)


def _mixup(num_classes: int) -> Mix:
    from kornia.augmentation import RandomMixUpV2

    mixer = RandomMixUpV2(data_keys=["input", "class"])  # its uniform share is Beta(1, 1)

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, rows = mixer(images, labels)
        _, partners, taken = rows.unbind(dim=1)
        return mixed, mixed_targets(labels, partners.long(), 1 - taken, num_classes)

    return mix


def _cutmix(num_classes: int) -> Mix:
    from kornia.augmentation import RandomCutMixV2

    mixer = RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)

    def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, rows = mixer(images, labels)
        _, partners, kept = rows[0].unbind(dim=1)
        return mixed, mixed_targets(labels, partners.long(), kept, num_classes)

    return mix
