"""Accuracy, top-5 accuracy and confusion matrix of a network on labelled images.

Legend: M test images, m images of a batch, H = W image side, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d3hr.data.codec import to_unit_range
from d3hr.evaluation.images import LabelledImages

TEST_BATCH = 500
"""Images per batch of a test."""
TOP = 5


@dataclass(frozen=True)
class Score:
    """How well a network names the classes of test images.

    Attributes:
        accuracy: share of images whose class is the most likely one, 0 to 1.
        top5: share of images whose class is among the five most likely; None with five classes or fewer, where it says little.
        confusion: number of images of each true class (row) that were given each class (column).
    """

    accuracy: float
    top5: float | None
    confusion: tuple[tuple[int, ...], ...]


@torch.no_grad()
def score(predict: Callable[[Tensor], Tensor], test: LabelledImages) -> Score:
    """Return the score of a function from images [m, 3, H, W] in [-1, 1] to logits [m, C]."""
    ranks, predictions = [], []
    for images, labels in zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True):
        logits = predict(to_unit_range(images)).float().cpu()
        predictions.append(logits.argmax(dim=1))
        ranks.append((logits > logits.gather(1, labels[:, None])).sum(dim=1))
    classes = len(test.class_names)
    confusion = torch.bincount(test.labels * classes + torch.cat(predictions), minlength=classes**2).view(classes, classes)
    return Score(
        accuracy=int(confusion.diagonal().sum()) / len(test.labels),
        top5=int((torch.cat(ranks) < TOP).sum()) / len(test.labels) if classes > TOP else None,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def score_network(network: nn.Module, test: LabelledImages) -> Score:
    """Return the score of a network; it is tested in evaluation mode and left in the mode it was in."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    result = score(lambda images: network(images.to(device)), test)
    network.train(training)
    return result
