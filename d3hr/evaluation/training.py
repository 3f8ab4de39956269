"""Trains a network by a protocol, step by step.

Order and randomness of a step follow from (seed, step) alone, so that a training stopped anywhere can go on as if it had not been.

Legend: N training images, n images of a batch, H = W image side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from d3hr.errors import NumericalError
from d3hr.evaluation.augmentation import Mix, augmentation, mixing
from d3hr.evaluation.images import LabelledImages
from d3hr.evaluation.metrics import Score, score_network
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import TrainingResult
from d3hr.evaluation.students import Student, new_student
from d3hr.evaluation.targets import Targets, distance
from d3hr.prior.model import default_device
from d3hr.seeds import derive_seed, generator_for


def learning_rate_share(schedule: str, done: int, total: int) -> float:
    """Return the share of the first learning rate that holds at time ``done`` of ``total``.

    Args:
        schedule: ``cosine``, 0.5 (1 + cos(pi done / total)); ``half_cosine``, 0.5 (1 + cos(pi done / (2 total))); or ``step``, 1 in the
            first half and 0.1 in the second.
        done: epochs or steps behind, from 0.
        total: all epochs or steps.
    """
    if schedule == "step":
        return 1.0 if 2 * done < total else 0.1
    span = {"cosine": total, "half_cosine": 2 * total}[schedule]
    return 0.5 * (1 + math.cos(math.pi * done / span))


def learning_rate_at(protocol: Protocol, step: int, count: int) -> float:
    """Return the learning rate of a step, from 0, of a training on ``count`` images."""
    ticks, steps_each = protocol.ticks(count)
    rising = protocol.warmup * ticks * steps_each
    risen = min(1.0, (step + 1) / rising) if rising else 1.0
    return protocol.learning_rate * risen * learning_rate_share(protocol.schedule, step // steps_each, ticks)


def parameter_groups(network: nn.Module, protocol: Protocol) -> list[dict[str, Any]]:
    """Return the parameters of a network with their weight decay, those without decay in a group of their own."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in network.parameters():
        (decayed if protocol.decay_vectors or parameter.ndim > 1 else spared).append(parameter)
    return [{"params": decayed, "weight_decay": protocol.weight_decay}, {"params": spared, "weight_decay": 0.0}]


def new_optimiser(network: nn.Module, protocol: Protocol) -> torch.optim.Optimizer:
    """Return the optimiser of a network."""
    groups = parameter_groups(network, protocol)
    if protocol.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=protocol.learning_rate, betas=(protocol.momentum, 0.999))
    return torch.optim.SGD(groups, lr=protocol.learning_rate, momentum=protocol.momentum, nesterov=protocol.nesterov)


Reader = Callable[[Tensor], Tensor]
"""Positions, int64 [n], to images, float [n, 3, H, W] in [-1, 1]."""


@dataclass
class Training:
    """A network on its way through a protocol.

    Attributes:
        network: what is trained, in place.
        read: gives the images.
        count: number of images, N.
        image_size: their side, in pixels.
        protocol: how to train.
        targets: what to teach about each image.
        seed: seed of order and augmentation.
        step: steps behind.
    """

    network: nn.Module
    read: Reader
    count: int
    image_size: int
    protocol: Protocol
    targets: Targets
    seed: int
    step: int = 0
    optimiser: torch.optim.Optimizer = field(init=False)
    _epoch: int = field(init=False, default=-1)
    _batches: tuple[Tensor, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        self.optimiser = new_optimiser(self.network, self.protocol)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return math.prod(self.protocol.ticks(self.count))

    @property
    def steps_of_epoch(self) -> int:
        """Steps of one pass over the images."""
        return math.ceil(self.count / self.protocol.batch_size)

    @property
    def at_check(self) -> bool:
        """Whether the student is tested at this point; it always is at the end."""
        checks = self.protocol.checks
        return self.step in {round(self.steps * (check + 1) / checks) for check in range(checks)}

    def advance(self) -> Tensor:
        """Make one step and return its loss."""
        device = next(self.network.parameters()).device
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.protocol, self.step, self.count)
        positions = self._batch()
        images, positions = self.read(positions).to(device), positions.to(device)
        self.network.train()
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(self.seed, "step", self.step))
            mixed = self._mix(self._augment(images))
            targets = self.targets(mixed, positions)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.protocol.precision == "bf16"):
                logits = self.network(mixed.images)
        loss = distance(logits.float(), targets, self.protocol)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return loss.detach()

    def require_finite(self, loss: Tensor) -> None:
        """Raise :class:`NumericalError` if a loss is NaN or infinite."""
        if not torch.isfinite(loss):
            raise NumericalError(
                "The training of a student left the finite numbers.",
                found=f"loss {float(loss)} at step {self.step} of {self.steps}",
                hint="use a protocol with a lower learning rate, or precision: fp32.",
            )

    def _batch(self) -> Tensor:
        """Return the positions of this step's images; a pass visits each image once, in batches of nearly equal size."""
        epoch, place = divmod(self.step, self.steps_of_epoch)
        if self._epoch != epoch:
            order = torch.randperm(self.count, generator=generator_for(self.seed, "order", epoch))
            self._epoch, self._batches = epoch, order.tensor_split(self.steps_of_epoch)
        return self._batches[place]

    @cached_property
    def _augment(self) -> nn.Module:
        return augmentation(self.protocol, self.image_size)

    @cached_property
    def _mix(self) -> Mix:
        return mixing(self.protocol)


def train_and_test(
    train: LabelledImages,
    test: LabelledImages,
    *,
    student: str,
    protocol: Protocol,
    targets: Targets,
    seed: int,
    distillation_seed: int = 0,
) -> TrainingResult:
    """Train a student on ``train`` and test it on ``test``, whose labels mean the same classes.

    Args:
        train: the distilled images.
        test: real images.
        student: name of the network.
        protocol: how to train.
        targets: what to teach about each image.
        seed: seed of weights, order and augmentation.
        distillation_seed: seed of the set, for the record.

    Raises:
        NumericalError: the loss left the finite numbers.
    """
    side = train.images.shape[-1]
    network = seeded_student(student, len(train.class_names), side, seed)
    training = Training(network, train.read, len(train.labels), side, protocol, targets, seed)
    scores: list[Score] = []
    while training.step < training.steps:
        loss = training.advance()
        if training.at_check:
            training.require_finite(loss)
            scores.append(score_network(network, test))
    last = scores[-1]
    return TrainingResult(last.accuracy, max(each.accuracy for each in scores), last.top5, last.confusion, seed, distillation_seed)


def seeded_student(name: str, num_classes: int, image_size: int, seed: int) -> Student:
    """Return an untrained student, on the fastest device, whose weights follow from the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "student"))
        return new_student(name, num_classes, image_size).to(default_device())
