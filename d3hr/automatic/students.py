"""The students that compare candidates: as large and as long as the budget allows, by a measurement of some seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch

from d3hr.data.dataset import ImageData
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.training import hard_targets, seeded_student, train_student

STUDENT = "convnet3"
PROTOCOL = "trial"
MANY_IMAGES = 500
"""Images of a set from which on students learn for twice as long (as in the protocol's benchmark)."""
SIDES = (64, 32, 16)
"""Sides at which students may see the images, the best first; images that are smaller are seen as they are."""
BATCH = 64
"""Images per step, of the protocol, where there are so many."""
TRAININGS = 15
"""Students that should fit into the share: five ways with three sets each."""
SHARE = 0.5
"""Share of the budget for them."""
_TIMED_STEPS = 3
Labels = Literal["hard", "soft"]


@dataclass(frozen=True)
class StudentPlan:
    """How students are trained.

    Attributes:
        image_size: side in pixels that they see.
        steps: optimiser steps.
        seconds_per_step: of a step on a set, as measured on this machine.
        seconds_per_batch: of a step on :data:`BATCH` images.
    """

    image_size: int
    steps: int
    seconds_per_step: float
    seconds_per_batch: float

    def protocol(self, labels: Labels, *, steps: int | None = None) -> Protocol:
        """Return the protocol, for another number of steps if one is given."""
        changes = {"steps": steps or self.steps, "labels": "stored" if labels == "soft" else "hard"}
        small = {"shift": 0.0} if self.image_size < min(SIDES) else {}  # a shift is too much for eight pixels
        return protocol_named(PROTOCOL).model_copy(update={**changes, **small})

    def seconds_at(self, side: int) -> float:
        """Return the seconds of a step on a whole batch at another side, as they are about proportional to pixels."""
        return self.seconds_per_batch * (side / self.image_size) ** 2


def plan_students(images: ImageData, ipc: int, seconds: float) -> StudentPlan:
    """Return the best plan whose students fit into their share of ``seconds``; if none does, the cheapest.

    A larger side comes before a smaller one, and full length before half at the same side.
    """
    classes = len(images.class_names)
    full = 400 if ipc * classes >= MANY_IMAGES else 200
    sides = [side for side in SIDES if side <= images.image_size] or [images.image_size]
    for side in sides:
        step = seconds_per_step(classes, side, batch=min(BATCH, ipc * classes))
        lengths = [steps for steps in (full, full // 2) if TRAININGS * steps * step <= SHARE * seconds]
        if lengths or side == sides[-1]:
            break
    return StudentPlan(side, max(lengths, default=full // 2), step, seconds_per_step(classes, side, batch=BATCH))


def seconds_per_step(classes: int, side: int, batch: int) -> float:
    """Return the seconds of an optimiser step on this machine, measured on random images."""
    network = seeded_student(STUDENT, classes, side, 0)
    images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = (torch.arange(batch) % classes).to(next(network.parameters()).device)
    started = [0.0]

    def after_step(done: int) -> None:
        if done == 1:  # the first step reserves memory
            started[0] = time.perf_counter()

    train_student(
        network,
        lambda positions: images[positions],
        batch,
        protocol=StudentPlan(side, 1, 0.0, 0.0).protocol("hard", steps=1 + _TIMED_STEPS),
        targets=hard_targets(labels, classes),
        image_size=side,
        seed=0,
        title="measuring",
        after_step=after_step,
    )
    return (time.perf_counter() - started[0]) / _TIMED_STEPS
