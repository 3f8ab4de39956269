"""Tests a network on labelled images.

Legend: M test images, H = W image side, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d3hr.data.codec import to_unit_range
from d3hr.evaluation.images import LabelledImages

TEST_BATCH = 500
"""Images that a network is tested on at once."""
TOP = 5


@dataclass(frozen=True)
class Score:
    """What a network gets right.

    Attributes:
        accuracy: share of images whose class is the likeliest, 0 to 1.
        top5: share of images whose class is among the five likeliest; None with five classes or fewer, where it says little.
        confusion: how many images of each true class (row) were given each class.
    """

    accuracy: float
    top5: float | None
    confusion: tuple[tuple[int, ...], ...]


@torch.no_grad()
def score(ask: Callable[[Tensor], Tensor], test: LabelledImages) -> Score:
    """Return what is right of the logits [m, C] that ``ask`` gives of images [m, 3, H, W] in [-1, 1]."""
    classes, ranks, answers = len(test.class_names), [], []
    for images, labels in zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True):
        logits = ask(to_unit_range(images)).float().cpu()
        answers.append(logits.argmax(dim=1))
        ranks.append((logits > logits.gather(1, labels[:, None])).sum(dim=1))
    rank, answer = torch.cat(ranks), torch.cat(answers)
    confusion = torch.bincount(test.labels * classes + answer, minlength=classes**2).view(classes, classes)
    return Score(
        accuracy=int(confusion.diagonal().sum()) / len(test.labels),
        top5=int((rank < TOP).sum()) / len(test.labels) if classes > TOP else None,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def score_network(network: nn.Module, test: LabelledImages) -> Score:
    """Return what a network gets right; it is tested in evaluation mode and left in the mode it was in."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    found = score(lambda images: network(images.to(device)), test)
    network.train(training)
    return found
