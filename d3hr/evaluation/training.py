"""Trains one student on a set of labelled images and tests it on real ones.

Legend: N training images, M test images, H = W image side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.evaluation.augmentation import augmentation, mixing
from d3hr.evaluation.optimization import learning_rate_at, new_optimiser
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.students import new_student
from d3hr.prior.model import default_device
from d3hr.seeds import derive_seed

CHECKS = 10
"""How often, evenly over a run, the student is tested; the last check is the figure."""
TEST_BATCH = 500
"""Images that a student is tested on at once."""


@dataclass(frozen=True)
class Labelled:
    """Images with labels, in memory.

    Attributes:
        images: uint8 [N, 3, H, W].
        labels: int64 [N].
        class_names: the name of each label.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training of one student.

    Attributes:
        last_epoch: test accuracy at the end, 0 to 1: the figure.
        best_epoch: highest test accuracy of all checks, chosen on the test set and so no fair figure.
    """

    last_epoch: float
    best_epoch: float


def train_and_test(train: Labelled, test: Labelled, *, student: str, protocol: Protocol, seed: int) -> Run:
    """Train a student on ``train`` and test it on ``test``, whose labels mean the same classes.

    Args:
        train: the distilled images.
        test: real images.
        student: name of the network.
        protocol: how to train.
        seed: seed of weights, order and augmentation.
    """
    device = default_device()
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "student"))
        network = new_student(student, len(train.class_names), train.images.shape[-1]).to(device)
        accuracies = [accuracy(network, test) for _ in _train(network, train, protocol, device)]
    return Run(last_epoch=accuracies[-1], best_epoch=max(accuracies))


@torch.no_grad()
def accuracy(network: nn.Module, test: Labelled) -> float:
    """Return the share of ``test`` that ``network`` labels right."""
    device = next(network.parameters()).device
    network.eval()
    right = 0
    for images, labels in zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True):
        right += int((network(_to_float(images.to(device))).argmax(dim=1).cpu() == labels).sum())
    network.train()
    return right / len(test.labels)


def _train(network: nn.Module, train: Labelled, protocol: Protocol, device: torch.device) -> Iterator[int]:
    """Train in place; yields the number of steps done at each check."""
    augment, mix = augmentation(protocol, train.images.shape[-1]), mixing(protocol, len(train.class_names))
    optimiser = new_optimiser(network, protocol)
    images, labels = _to_float(train.images.to(device)), train.labels.to(device)
    steps = math.prod(protocol.ticks(len(labels)))
    checks = {round(steps * (check + 1) / CHECKS) for check in range(CHECKS)}
    batches = _batches(len(labels), protocol.batch_size)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(protocol, step, len(labels))
        batch = next(batches).to(device)
        mixed, targets = mix(augment(images[batch]), labels[batch])
        loss = F.cross_entropy(network(mixed), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step + 1 in checks:
            yield step + 1


def _batches(size: int, batch_size: int) -> Iterator[Tensor]:
    """Yield positions for ever; every epoch visits each image once."""
    while True:
        yield from torch.randperm(size).split(batch_size)


def _to_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1
