"""What came of training students: accuracies over seeds, as a row that may stand in a table."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from d3hr.evaluation.protocols import Protocol

CONFUSION_CLASSES = 100
"""Most classes of which a row holds the whole confusion matrix; the accuracy of each class it always holds."""


@dataclass(frozen=True)
class TrainingResult:
    """What came of one training of one student on one set.

    Attributes:
        last_epoch: test accuracy at the end, 0 to 1; the number that tables report.
        best_epoch: highest test accuracy of all checks, 0 to 1; it is selected on the test set, so tables show it only for comparison.
        top5: share of test images whose class is among the five most likely at the end; None with five classes or fewer.
        confusion: number of test images of each true class (row) that were given each class (column) at the end.
        training_seed: seed of weights, order and augmentation.
        distillation_seed: seed of the set.
    """

    last_epoch: float
    best_epoch: float
    top5: float | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    training_seed: int = 0
    distillation_seed: int = 0


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
        class_names: the names of the classes, in the order of the confusion matrices.
        name: what a table calls the row; by default the method.
        teacher: source, network and test accuracy of the teacher, for soft labels.
        soft_label_bytes: bytes of stored soft labels.
    """

    method: str
    ipc: int
    student: str
    protocol: Protocol
    runs: tuple[TrainingResult, ...]
    image_size: int | None = None
    class_names: tuple[str, ...] = ()
    name: str | None = None
    teacher: dict[str, Any] | None = None
    soft_label_bytes: int = 0

    @property
    def accuracy_mean(self) -> float:
        """Mean last-epoch test accuracy, 0 to 1."""
        return statistics.fmean(run.last_epoch for run in self.runs)

    @property
    def accuracy_std(self) -> float:
        """Sample standard deviation of the last-epoch test accuracy over all runs; 0 for one run."""
        return _std([run.last_epoch for run in self.runs]) or 0.0

    @property
    def distillation_std(self) -> float | None:
        """Sample standard deviation, over distillation seeds, of the mean over training seeds; None for one set."""
        return _std([statistics.fmean(group) for group in self._by_set()])

    @property
    def training_std(self) -> float | None:
        """Standard deviation over training seeds on one set, pooled over sets; None where each set was trained on once."""
        groups = [group for group in self._by_set() if len(group) > 1]
        degrees = sum(len(group) - 1 for group in groups)
        return (sum(statistics.variance(group) * (len(group) - 1) for group in groups) / degrees) ** 0.5 if degrees else None

    @property
    def best_epoch_mean(self) -> float:
        """Mean of the best test accuracy of each run: chosen on the test set, shown for comparison with tables that report it."""
        return statistics.fmean(run.best_epoch for run in self.runs)

    @property
    def top5_mean(self) -> float | None:
        """Mean top-5 accuracy, 0 to 1; None with five classes or fewer."""
        values = [run.top5 for run in self.runs if run.top5 is not None]
        return statistics.fmean(values) if values else None

    @property
    def confusion(self) -> list[list[int]]:
        """How many test images of each true class (row) were given each class, summed over the runs."""
        matrices = [run.confusion for run in self.runs if run.confusion]
        return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]

    @property
    def per_class(self) -> dict[str, float]:
        """Accuracy on the test images of each class, 0 to 1, over all runs."""
        named = zip(self.class_names, self.confusion, strict=False)
        return {name: row[label] / sum(row) for label, (name, row) in enumerate(named)}

    def as_row(self) -> dict[str, Any]:
        """Return the figures as JSON values; accuracies are shares from 0 to 1, ``seeds`` is the number of runs.

        ``runs`` lists (distillation seed, training seed, last-epoch accuracy), for paired differences.
        """
        return {
            "name": self.name or self.method,
            "method": self.method,
            "ipc": self.ipc,
            "accuracy_mean": _rounded(self.accuracy_mean),
            "accuracy_std": _rounded(self.accuracy_std),
            "seeds": len(self.runs),
            "distillation_seeds": sorted({run.distillation_seed for run in self.runs}),
            "training_seeds": sorted({run.training_seed for run in self.runs}),
            "distillation_std": _rounded(self.distillation_std),
            "training_std": _rounded(self.training_std),
            "runs": [[run.distillation_seed, run.training_seed, round(run.last_epoch, 6)] for run in self.runs],
            "best_epoch_mean": _rounded(self.best_epoch_mean),
            "top5_mean": _rounded(self.top5_mean),
            "labels": "soft" if self.protocol.soft else "hard",
            "student": self.student,
            "image_size": self.image_size,
            "protocol": self.protocol.name,
            "protocol_settings": self.protocol.model_dump(mode="json"),
            "teacher": self.teacher,
            "soft_label_bytes": self.soft_label_bytes,
            "per_class": {name: _rounded(share) for name, share in self.per_class.items()},
            "class_names": list(self.class_names),
            "confusion": self.confusion if len(self.class_names) <= CONFUSION_CLASSES else [],
        }

    def _by_set(self) -> list[list[float]]:
        groups: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            groups[run.distillation_seed].append(run.last_epoch)
        return list(groups.values())


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
