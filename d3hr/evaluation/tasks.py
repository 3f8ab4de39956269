"""Trainings as tasks: a student of one seed, trained on one set and tested on real images, in whichever process.

Legend: N images of a set, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from d3hr.evaluation.images import LabelledImages, StudentImages
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import TrainingResult
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import Targets, hard_targets, online_targets, stored_targets, train_and_test
from d3hr.execution.worker import device_here, name_elsewhere
from d3hr.fileio.checksums import digest_of
from d3hr.prior.networks import default_device
from d3hr.progress import SILENT, Progress
from d3hr.sets.image_set import ImageSet


@dataclass(frozen=True)
class Training:
    """A student to train on a set and to test: a task of :class:`Trainings`.

    Attributes:
        distilled: the set.
        student: name of the network.
        protocol: how it is trained.
        seed: of weights, order and augmentation.
        image_size: side in pixels that the student sees; None is the set's own.
        soft_labels: logits [N, C] of the set's images, for a protocol that stores them.
        teacher: the teacher, for a protocol that asks it at every step.
    """

    distilled: ImageSet
    student: str
    protocol: Protocol
    seed: int
    image_size: int | None = None
    soft_labels: Tensor | None = None
    teacher: Teacher | None = None

    @property
    def seen(self) -> int:
        """Side in pixels that the student sees."""
        return self.distilled.image_size if self.image_size is None else self.image_size

    @property
    def given(self) -> int | None:
        """Side in pixels of the set's images as they are given to training; None is their own, where a protocol crops them."""
        return None if self.protocol.crop_stored else self.seen

    @property
    def soft_label_bytes(self) -> int:
        """Bytes of stored soft labels."""
        return 0 if self.soft_labels is None else self.soft_labels.nbytes


class Trainings:
    """Trains and tests students, as :class:`~d3hr.execution.base.Work`.

    Args:
        images: what students see; it has the real images to test on.
        device: where students are trained: a name that every process can understand, as ``cuda``; by default the device in use.
        progress: where a training in this process reports; those in others report nothing.
    """

    def __init__(self, images: StudentImages, device: str | None = None, progress: Progress = SILENT) -> None:
        self.images, self.device, self.progress = images, device or name_elsewhere(default_device()), progress

    def __reduce__(self) -> tuple[Any, ...]:
        return Trainings, (self.images, self.device)

    def open(self) -> Callable[[Training], TrainingResult]:
        """Return the function that trains a student and gives its result."""
        return partial(self._train, device=device_here(self.device), opened={})

    def _train(self, task: Training, device: torch.device, opened: dict[str, ImageSet]) -> TrainingResult:
        key = digest_of([task.distilled.source, task.distilled.identity])
        if key not in opened:  # another process is sent a set with every task, and reads its images once
            opened.clear()
            opened[key] = task.distilled
        train = self.images.trained(opened[key], task.given)
        return train_and_test(
            train,
            self.images.tested(train.class_names, task.seen, task.protocol.test_crop),
            student=task.student,
            protocol=task.protocol,
            targets=_targets(task, train, device),
            seed=task.seed,
            distillation_seed=task.distilled.seed,
            device=device,
            progress=self.progress,
        )


def _targets(task: Training, train: LabelledImages, device: torch.device) -> Targets:
    """Return the target probabilities of each image."""
    protocol = task.protocol
    if task.teacher is not None:
        teacher = task.teacher
        return online_targets(lambda images: teacher.logits(images, train.class_names), protocol.temperature)
    if task.soft_labels is not None:
        return stored_targets(task.soft_labels.to(device), protocol.temperature)
    return hard_targets(train.labels.to(device), len(train.class_names), protocol.label_smoothing)
