"""What came of training students: accuracies over seeds, and rows that may stand in one table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from d3hr.data import ImageData
from d3hr.errors import ClassMismatch, SettingsError
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.training import Labelled, Run, train_and_test
from d3hr.progress import SILENT, Progress
from d3hr.storage import DistilledSet, to_uint8

SEEDS = (0, 1, 2)
_RESIZED_AT_ONCE = 256


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of one student under one protocol over several seeds.

    Attributes:
        method: what made the training images.
        ipc: images per class.
        student: name of the network.
        protocol: how it was trained.
        runs: one per distillation seed and training seed.
        image_size: side, in pixels, that the student saw; None is each set's own.
    """

    method: str
    ipc: int
    student: str
    protocol: Protocol
    runs: tuple[Run, ...]
    image_size: int | None = None

    @property
    def accuracy_mean(self) -> float:
        """Mean last-epoch test accuracy, 0 to 1."""
        return statistics.fmean(run.last_epoch for run in self.runs)

    @property
    def accuracy_std(self) -> float:
        """Sample standard deviation of the last-epoch test accuracy; 0 for one run."""
        return statistics.stdev(run.last_epoch for run in self.runs) if len(self.runs) > 1 else 0.0

    @property
    def best_epoch_mean(self) -> float:
        """Mean of the best test accuracy of each run: chosen on the test set, shown for comparison with tables that report it."""
        return statistics.fmean(run.best_epoch for run in self.runs)

    def as_row(self) -> dict[str, Any]:
        """Return the figures as JSON values; accuracies are shares from 0 to 1, ``seeds`` is the number of runs."""
        return {
            "method": self.method,
            "ipc": self.ipc,
            "accuracy_mean": round(self.accuracy_mean, 6),
            "accuracy_std": round(self.accuracy_std, 6),
            "seeds": len(self.runs),
            "best_epoch_mean": round(self.best_epoch_mean, 6),
            "labels": self.protocol.labels,
            "student": self.student,
            "image_size": self.image_size,
            "protocol": self.protocol.name,
            "protocol_settings": self.protocol.model_dump(mode="json"),
        }


def evaluate(
    distilled: DistilledSet | ImageData,
    test: ImageData,
    *,
    student: str = "convnet3",
    protocol: str | Protocol = "hard",
    seeds: Sequence[int] = SEEDS,
    image_size: int | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Train a student on a distilled set, once a seed, and test it on real images.

    Args:
        distilled: a distilled set, or any folder of class folders opened with :func:`d3hr.load_images`.
        test: real images of the same classes, matched by name.
        student: the network.
        protocol: how to train it, or a protocol's name.
        seeds: training seeds.
        image_size: side in pixels that the student sees, in training and in testing; by default the set's own.
        progress: where to report.

    Raises:
        ClassMismatch: the classes differ.
        SettingsError: an unknown student or protocol, no seed, or images too small for the student.
    """
    if not seeds:
        raise SettingsError("An evaluation needs at least one seed.", found="none", do="give --seeds.")
    train = training_images(distilled, image_size)
    per_class = len(train.labels) // len(train.class_names)
    chosen = protocol_named(protocol, ipc=per_class) if isinstance(protocol, str) else protocol
    labelled = real_images(test, train)
    runs = []
    with progress.bar(f"training {student}", len(seeds)) as bar:
        for seed in seeds:
            runs.append(train_and_test(train, labelled, student=student, protocol=chosen, seed=seed))
            bar.update(len(runs))
    method = distilled.manifest.method if isinstance(distilled, DistilledSet) else "folder"
    return Evaluation(method, per_class, student, chosen, tuple(runs), image_size)


def training_images(distilled: DistilledSet | ImageData, image_size: int | None = None) -> Labelled:
    """Return a set's images in memory, resized where a side in pixels is given.

    Raises:
        SettingsError: the side is not positive.
    """
    if image_size is not None and image_size < 1:
        raise SettingsError("--image_size must be positive.", found=f"{image_size}", do="give a side in pixels, or leave it out.")
    if isinstance(distilled, DistilledSet):
        return Labelled(_resized(distilled.images, image_size), distilled.labels, distilled.class_names)
    images, labels = distilled.gather(range(len(distilled)))
    return Labelled(_resized(to_uint8(images), image_size), labels, distilled.class_names)


def _resized(images: torch.Tensor, image_size: int | None) -> torch.Tensor:
    """Return images uint8 [N, 3, H, W] at another side, antialiased, each level rounded; memory holds the floats of one chunk."""
    if image_size in (None, images.shape[-1]):
        return images
    sides = (image_size, image_size)
    chunks = (F.interpolate(chunk.float(), sides, mode="bilinear", antialias=True) for chunk in images.split(_RESIZED_AT_ONCE))
    return torch.cat([chunk.round().clamp(0, 255).to(torch.uint8) for chunk in chunks])


def real_images(test: ImageData, train: Labelled) -> Labelled:
    """Return real images in memory, at the size of ``train`` and labelled in its order of classes.

    Raises:
        ClassMismatch: the classes differ.
    """
    names = train.class_names
    if not set(test.class_names) <= set(names):
        raise ClassMismatch(f"the test set {test.source}", test.class_names, "the distilled set", names)
    if not set(names) <= set(test.class_names):
        raise ClassMismatch("the distilled set", names, f"the test set {test.source}", test.class_names)
    sized = test.at_size(train.images.shape[-1])
    parts, labels = [], []
    for name, batches in sized:
        parts += [to_uint8(batch) for batch in batches]
        labels += [names.index(name)] * test.counts[name]
    return Labelled(torch.cat(parts), torch.tensor(labels), names)
