"""Results of training students: accuracies over seeds, and the rows of ``results.json`` that hold them."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from d3hr.evaluation.protocols import Protocol
from d3hr.fileio.atomic import write_bytes, write_json
from d3hr.fileio.structured import Record, validated_json

BASELINES = {"random_real": "random real images", "prior_only": "images drawn from the prior alone"}
"""Methods that every set is compared with, and their names in a sentence."""
CONFUSION_CLASSES = 100
"""Most classes of which a row holds the whole confusion matrix; the accuracy of each class it always holds."""
_COPIED = (
    *("method", "ipc", "student", "image_size", "teacher", "soft_label_bytes", "pack", "class_names", "per_class"),
    *("accuracy_mean", "accuracy_std", "distillation_std", "training_std", "best_epoch_mean", "top5_mean"),
)
"""Fields of an :class:`Evaluation` that its row has too."""


def own_name(method: str) -> str | None:
    """Return the name that the row of a set has next to its baselines, where its method is one of them; None is the method's own."""
    return f"{method}, the set" if method in BASELINES else None


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
        hits: a character for each test image, in their order: "1" if its class was named right at the end, else "0"; empty where that
            is not known.
    """

    last_epoch: float
    best_epoch: float
    top5: float | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    training_seed: int = 0
    distillation_seed: int = 0
    hits: str = ""


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
        pack: pictures along each side of a stored image: results of packed sets are compared with one another only.
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
    pack: int = 1

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

    def row(self) -> ResultRow:
        """Return the figures as a row of a table."""
        return ResultRow(
            name=self.name or self.method,
            seeds=len(self.runs),
            distillation_seeds=tuple(sorted({run.distillation_seed for run in self.runs})),
            training_seeds=tuple(sorted({run.training_seed for run in self.runs})),
            runs=tuple((run.distillation_seed, run.training_seed, run.last_epoch) for run in self.runs),
            labels="soft" if self.protocol.soft else "hard",
            protocol=self.protocol.name,
            protocol_settings=self.protocol.model_dump(mode="json"),
            confusion=tuple(map(tuple, self.confusion)) if len(self.class_names) <= CONFUSION_CLASSES else (),
            **{field: getattr(self, field) for field in _COPIED},
        )

    def as_row(self) -> dict[str, Any]:
        """Return the figures as JSON values, those of a :class:`ResultRow`."""
        return self.row().as_values()

    def _by_set(self) -> list[list[float]]:
        groups: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            groups[run.distillation_seed].append(run.last_epoch)
        return list(groups.values())


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


Rounded = Annotated[float, AfterValidator(lambda value: round(value, 6))]
Share = Annotated[Rounded, Field(ge=0, le=1)]


class ResultRow(Record):
    """A row of ``results.json``: one method at one number of images per class, with one student and protocol.

    Accuracies are shares from 0 to 1, rounded to six decimals. A file may lack the fields that have a default.
    """

    name: str | None = None
    """What a table calls the row; by default the method."""
    method: str
    ipc: int = Field(ge=1)
    accuracy_mean: Share
    """Last-epoch test accuracy, mean over all runs."""
    accuracy_std: Annotated[Rounded, Field(ge=0)]
    """Its sample standard deviation over all runs; 0 for one run."""
    seeds: int = Field(ge=1)
    """Number of runs."""
    distillation_seeds: tuple[int, ...] | None = None
    training_seeds: tuple[int, ...] | None = None
    distillation_std: Rounded | None = None
    training_std: Rounded | None = None
    runs: tuple[tuple[int, int, Share], ...] | None = None
    """Distillation seed, training seed and last-epoch accuracy of every run, for paired differences."""
    best_epoch_mean: Share | None = None
    top5_mean: Share | None = None
    labels: Literal["hard", "soft"]
    student: str
    image_size: int | None = None
    """Side in pixels that the student saw; None is the set's own."""
    protocol: str
    protocol_settings: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    soft_label_bytes: int | None = None
    pack: int = Field(default=1, ge=1)
    """Pictures along each side of a stored image (see :mod:`d3hr.sets.packing`)."""
    per_class: dict[str, Share | None] | None = None
    class_names: tuple[str, ...] | None = None
    confusion: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] | None = None
    """Counts; rows are true classes, columns predictions, both in the order of ``class_names``. Empty where there are too many classes."""
    hlr: Rounded | None = None
    ior: Rounded | None = None
    lrs: Rounded | None = None

    @model_validator(mode="after")
    def _square(self) -> ResultRow:
        side = len(self.class_names or ())
        if side and self.confusion and [len(row) for row in self.confusion] != [side] * side:
            raise ValueError(f"the confusion matrix is not {side} x {side}, as its class names are")
        return self

    @property
    def named_classes(self) -> set[str]:
        """Classes that the row names; empty if it names none."""
        return set(self.class_names or self.per_class or ())

    @property
    def identity(self) -> tuple[Any, ...]:
        """What two rows of one table may not have in common."""
        return self.name, self.ipc, self.pack, self.student, self.image_size, self.protocol_settings, self.teacher

    def as_values(self) -> dict[str, Any]:
        """Return the fields that are known as JSON values."""
        return self.model_dump(mode="json")


_ROWS = TypeAdapter(list[ResultRow])
_NESTED = {"runs", "per_class", "class_names", "confusion", "protocol_settings", "teacher"}
"""Fields of a row that ``results.csv`` leaves out."""


def read_results(folders: Sequence[Path], *, hint: str = "make it with 'd3hr evaluate' or 'd3hr compare'.") -> list[ResultRow]:
    """Return the rows of every folder's ``results.json``, each row once; ``hint`` says what to do if one is missing or damaged."""
    rows: list[ResultRow] = []
    for folder in folders:
        rows += [row for row in validated_json(folder / "results.json", _ROWS, hint=hint) if row not in rows]
    return rows


def write_results(folder: Path, rows: Sequence[ResultRow]) -> None:
    """Write ``results.json``, in which each row has its checksum, and ``results.csv``."""
    values = [row.as_values() for row in rows]
    write_json(folder / "results.json", values)
    table = [{name: _cell(value) for name, value in row.items() if name not in _NESTED} for row in values]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in table for name in row)))
    writer.writeheader()
    writer.writerows(table)
    write_bytes(folder / "results.csv", buffer.getvalue().encode())


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value
