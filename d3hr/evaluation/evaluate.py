"""Evaluates a set: students are trained on it by a protocol, once per seed, and tested on real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.errors import SettingsError, require_kind
from d3hr.evaluation.images import LabelledImages, StudentImages
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.results import Evaluation
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import Targets, hard_targets, online_targets, score, stored_targets, train_and_test
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
    seen = distilled.image_size if image_size is None else image_size
    train = test.trained(distilled, None if protocol.crop_stored else seen)
    tested = test.tested(train.class_names, seen, protocol.test_crop)
    teacher = require_teacher(protocol, teacher, train.class_names)
    record = describe_teacher(teacher, tested) if teacher else None
    targets, soft_label_bytes = _targets(train, protocol, teacher, soft_label_file)
    runs = []
    with progress.bar(f"training {student}", len(seeds)) as bar:
        for done, seed in enumerate(seeds):
            run = train_and_test(
                train,
                tested,
                student=student,
                protocol=protocol,
                targets=targets,
                seed=seed,
                distillation_seed=distilled.seed,
                progress=Within(bar, done, 1),
            )
            runs.append(run)
            bar.update(len(runs))
    return Evaluation(
        distilled.method,
        distilled.ipc,
        student,
        protocol,
        tuple(runs),
        image_size,
        class_names=train.class_names,
        teacher=record,
        soft_label_bytes=soft_label_bytes,
        pack=distilled.pack,
    )


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


def _targets(train: LabelledImages, protocol: Protocol, teacher: Teacher | None, file: Path | None) -> tuple[Targets, int]:
    """Return the target probabilities of each image, and the bytes of stored soft labels."""
    device = default_device()
    if teacher is None:
        return hard_targets(train.labels.to(device), len(train.class_names), protocol.label_smoothing), 0
    if protocol.labels == "online":
        return online_targets(lambda images: teacher.logits(images, train.class_names), protocol.temperature), 0
    logits = teacher.soft_labels(train, file)
    return stored_targets(logits.to(device), protocol.temperature), logits.nbytes
