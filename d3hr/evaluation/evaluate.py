"""Evaluates a set: students are trained on it by a protocol, once per seed, and tested on real images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.errors import SettingsError, require_kind
from d3hr.evaluation.images import LabelledImages, StudentImages
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.results import Evaluation, TrainingResult
from d3hr.evaluation.tasks import Training, Trainings
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import score
from d3hr.execution.base import SERIAL, Execution
from d3hr.prior.networks import default_device
from d3hr.progress import BY_DEFAULT, Progress, Within
from d3hr.sets.image_set import ImageSet, require_images

_MEASURED: dict[tuple[str, str], float] = {}
"""Accuracy of each teacher, by its fingerprint and a digest of the test images."""
TRAINING_SEEDS = (0, 1, 2)
"""Seeds of an evaluation, unless others are given."""


def evaluate(
    distilled: ImageSet,
    test: ImageData | StudentImages,
    *,
    student: str = "convnet3",
    protocol: str | Protocol = "hard",
    teacher: Teacher | str | Path | None = None,
    seeds: Sequence[int] = TRAINING_SEEDS,
    image_size: int | None = None,
    soft_label_file: Path | None = None,
    execution: Execution = SERIAL,
    progress: Progress = BY_DEFAULT,
) -> Evaluation:
    """Train a student on a distilled set, once per seed, and test it on real images.

    Of a packed set the student sees the single pictures, at the side of the whole, in as many steps as on a set of so many stored images.

    Args:
        distilled: a distilled set, or any folder of class folders opened with :func:`d3hr.load_images` and its ``keep_duplicates``.
        test: real images of the same classes, matched by name; several evaluations decode them once if they are given the same
            :class:`~d3hr.evaluation.images.StudentImages` of them.
        student: the network.
        protocol: how to train it, or a protocol's name or file.
        teacher: the teacher of soft labels, or its folder; its accuracy on ``test`` is measured before it is used.
        seeds: training seeds.
        image_size: side in pixels that the student sees, in training and in testing; by default the set's own.
        soft_label_file: file of stored soft labels; by default they are not kept.
        execution: where students are trained, each seed a task of its own (:mod:`d3hr.execution`); the result does not depend on it.
        progress: where to report.

    Raises:
        ClassMismatch: the classes of set, test and teacher differ.
        SettingsError: an unknown student or protocol, no seed or one twice, soft labels without a teacher, or too small images.
    """
    require_seeds(seeds)
    require_images(distilled)
    if not isinstance(test, StudentImages):
        require_kind("test", test, ImageData, OPEN_IMAGES)
        test = StudentImages(test)
    protocol = protocol_named(protocol, ipc=distilled.ipc, classes=len(distilled.class_names))
    protocol = protocol.on(default_device(), distilled.image_size if image_size is None else image_size)
    first = Training(distilled, student, protocol, seeds[0], image_size)
    task, record = prepared(first, test, teacher, soft_label_file)
    runs: dict[int, TrainingResult] = {}
    with progress.bar(f"training {student}", len(seeds)) as bar:
        within = Within(bar, 0, 1)
        for index, run in execution.run(Trainings(test, progress=within), [replace(task, seed=seed) for seed in seeds]):
            runs[index] = run
            within.move(len(runs))
    return Evaluation(
        distilled.method,
        distilled.ipc,
        student,
        protocol,
        tuple(runs[index] for index in range(len(seeds))),
        image_size,
        class_names=distilled.class_names,
        teacher=record,
        soft_label_bytes=task.soft_label_bytes,
        pack=distilled.pack,
    )


def prepared(
    task: Training, images: StudentImages, teacher: Teacher | str | Path | None = None, file: Path | None = None
) -> tuple[Training, dict[str, Any] | None]:
    """Return a task with what its protocol needs of a teacher, and what :func:`describe_teacher` says of the teacher, if there is one.

    Soft labels are stored in ``file``, if one is given, and found there again.

    Raises:
        ClassMismatch: the classes of set, test images and teacher differ.
        SettingsError: soft labels without a teacher, or too small images.
    """
    names = task.distilled.class_names
    images.require_classes(names)
    loaded = require_teacher(task.protocol, teacher, names)
    if loaded is None:
        return task, None
    record = describe_teacher(loaded, images.tested(names, task.seen, task.protocol.test_crop))
    if task.protocol.labels == "online":
        return replace(task, teacher=loaded), record
    return replace(task, soft_labels=loaded.soft_labels(images.trained(task.distilled, task.given), file)), record


def protocol_of_device() -> str:
    """Return the protocol that commands take unless another is named: ``hard``, or ``quick`` on a CPU, where ``hard`` takes an hour."""
    return "quick" if default_device().type == "cpu" else "hard"


def require_seeds(seeds: Sequence[int]) -> None:
    """Refuse no training seed at all, and one that is given twice: its training would count as two."""
    if not seeds:
        raise SettingsError("An evaluation needs at least one seed.", found="none", hint="give --seeds.")
    if len(set(seeds)) < len(seeds):
        raise SettingsError("A training seed is given twice.", found=", ".join(map(str, seeds)), hint="give --seeds that differ.")


def require_teacher(protocol: Protocol, teacher: Teacher | str | Path | None, class_names: Sequence[str]) -> Teacher | None:
    """Return the teacher that a protocol needs, whose classes must be these, or None where it needs none."""
    if not protocol.soft:
        return None
    if teacher is None:
        raise SettingsError(
            f"Protocol {protocol.name} needs a teacher.",
            found=f"{protocol.labels} labels, no --teacher",
            hint="give one, or train it: 'd3hr train-teacher DATA --test TEST --out TEACHER'.",
        )
    loaded = teacher if isinstance(teacher, Teacher) else Teacher.load(teacher)
    loaded.require_classes(class_names, "the training set")
    return loaded


def describe_teacher(teacher: Teacher, test: LabelledImages) -> dict[str, Any]:
    """Return source, network, fingerprint and accuracy (0 to 1, measured on ``test``, of the same classes) of a teacher, as JSON values.

    A process measures a teacher on the same images once, however many students it trains.
    """
    key = teacher.fingerprint, test.digest
    if key not in _MEASURED:
        _MEASURED[key] = score(lambda images: teacher.logits(images, test.class_names), test).accuracy
    return {"source": teacher.source, "student": teacher.student, "fingerprint": teacher.fingerprint, "accuracy": round(_MEASURED[key], 6)}
