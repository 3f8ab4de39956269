"""What a student is taught about an image: its class, or a teacher's logits.

Legend: N images of a batch, C classes, T temperature.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from d3hr.evaluation.augmentation import Mixed
from d3hr.evaluation.protocols import Protocol

Targets = Callable[[Mixed, Tensor], Tensor]
"""From a mixed batch and the positions, int64 [N], of its images in the set to target probabilities [N, C]."""


def hard_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Targets:
    """Return targets that are the class of each image, of ``labels`` int64 [all images].

    A share ``smoothing`` of each label, 0 to 1, is spread evenly over all classes.
    """
    rows = (1 - smoothing) * torch.eye(num_classes, device=labels.device) + smoothing / num_classes
    return lambda mixed, positions: mixed.targets(rows[labels[positions]])


def stored_targets(logits: Tensor, temperature: float) -> Targets:
    """Return targets softmax(logits / T), of ``logits`` [all images, C] that a teacher computed once."""
    rows = F.softmax(logits.float() / temperature, dim=1)
    return lambda mixed, positions: mixed.targets(rows[positions])


def online_targets(teacher: Callable[[Tensor], Tensor], temperature: float) -> Targets:
    """Return targets softmax(logits / T), of the logits [N, C] that ``teacher`` computes for the images of each mixed batch."""
    return lambda mixed, positions: F.softmax(teacher(mixed.images).float() / temperature, dim=1)


def student_loss(logits: Tensor, targets: Tensor, protocol: Protocol) -> Tensor:
    """Return the loss of a student's logits [N, C] against probabilities [N, C], averaged over the batch.

    For hard labels it is the cross-entropy; for soft labels KL(targets || softmax(logits / T)), as in arXiv 2505.18399, without the factor
    T^2 of arXiv 1503.02531.
    """
    if not protocol.soft:
        return F.cross_entropy(logits, targets)
    return F.kl_div(F.log_softmax(logits / protocol.temperature, dim=1), targets, reduction="batchmean")
