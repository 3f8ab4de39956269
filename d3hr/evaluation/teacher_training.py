"""Trains a teacher on all the real images; a stopped training continues to the same weights.

Teachers of chosen epochs are kept in ``epochs/<n>`` of its folder: one that has learned less may teach better where images are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from d3hr.data.dataset import ImageData
from d3hr.data.decoded import decoded
from d3hr.errors import SettingsError
from d3hr.evaluation.images import real_images
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import Targets, hard_targets, score_network, seeded_student, train_student
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.networks import default_device
from d3hr.progress import SILENT, Progress

_CHECKPOINT = "checkpoint.safetensors"


def train_teacher(
    images: ImageData,
    out: str | Path,
    *,
    test: ImageData,
    student: str = "resnet18",
    protocol: str | Protocol = "teacher",
    image_size: int | None = None,
    seed: int = 0,
    at_epochs: Sequence[int] = (),
    progress: Progress = SILENT,
) -> Teacher:
    """Train a network on all of ``images`` with hard labels, test it once, at the end, and return the teacher, loaded from ``out``.

    Its weights do not depend on which epochs are kept.

    Args:
        out: folder to write; a run that was stopped continues from its checkpoint there.
        test: real images of the same classes, on which its accuracy is measured.
        protocol: how to train it, or a protocol's name or file.
        image_size: side in pixels that it sees; by default the images' own.
        at_epochs: passes over the images, counted from 1, after each of which it is tested too, and kept as the teacher ``epochs/<n>``
            of ``out``.

    Raises:
        SettingsError: an unknown student or protocol, soft labels, too small images, or an epoch that the training does not have.
        ClassMismatch: the test images are of other classes.
    """
    protocol = protocol_named(protocol, ipc=images.ipc, classes=len(images.class_names)).for_student(student)
    if protocol.soft:
        raise SettingsError("A teacher learns from hard labels.", found=f"{protocol.labels} labels", hint="use --protocol teacher.")
    sized = images if image_size is None else images.at_size(image_size)
    protocol = protocol.on(default_device(), sized.image_size)
    key = {
        "kind": "teacher",
        "data": images.fingerprint,
        "test": test.fingerprint,
        "student": student,
        "image_size": sized.image_size,
        "protocol": protocol.model_dump(mode="json"),
        "seed": seed,
    }
    kept_after = _steps_of(at_epochs, protocol, len(images))
    if kept_after:
        key["at_epochs"] = sorted(kept_after.values())
    with StagedFolder(out, key) as stage:
        stage.report(progress)
        if stage.finished:
            return Teacher.load(out)
        kept = decoded(sized, stage.path, progress)
        network = seeded_student(student, len(images.class_names), sized.image_size, seed)
        tested = real_images(test, images.class_names, sized.image_size, protocol.test_crop)

        def keep(folder: Path, epoch: int | None) -> None:
            score = score_network(network, tested)
            about = {
                "protocol": protocol.model_dump(mode="json"),
                "seed": seed,
                "data": {"source": images.source, "split": images.split, "fingerprint": images.fingerprint, "images": len(images)},
                "test": {"source": test.source, "split": test.split, "fingerprint": test.fingerprint, "images": len(test)},
                "epoch": epoch,
                "accuracy": score.accuracy,
                "top5": score.top5,
            }
            folder.mkdir(parents=True, exist_ok=True)
            Teacher(network, student, images.class_names, sized.image_size, about).save(folder)

        def after_step(done: int) -> None:
            if done in kept_after:
                keep(stage.path / "epochs" / str(kept_after[done]), kept_after[done])

        train_student(
            network,
            lambda positions: kept.gather(positions, as_pixels=True)[0],
            len(images),
            protocol=protocol,
            targets=_targets(images, protocol),
            image_size=sized.image_size,
            seed=seed,
            title=f"training {student}",
            after_step=after_step,
            checkpoint=stage.path / _CHECKPOINT,
            progress=progress,
        )
        keep(stage.path, None)
        stage.commit(exclude=(_CHECKPOINT,))
    return Teacher.load(out)


def _targets(images: ImageData, protocol: Protocol) -> Targets:
    counts = torch.tensor(list(images.counts.values()))
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return hard_targets(labels.to(default_device()), len(counts), protocol.label_smoothing)


def _steps_of(epochs: Sequence[int], protocol: Protocol, count: int) -> dict[int, int]:
    """Return the number of steps done -> epoch, of epochs, from 1, of a training on ``count`` images."""
    per_epoch, steps = math.ceil(count / protocol.batch_size), math.prod(protocol.ticks(count))
    beyond = sorted(epoch for epoch in epochs if not 1 <= epoch * per_epoch <= steps)
    if beyond:
        raise SettingsError(
            "--at-epochs names an epoch that the training does not have.",
            found=f"{', '.join(map(str, beyond))}; it has {steps // per_epoch}",
            hint="name epochs from 1 to its last.",
        )
    return {epoch * per_epoch: epoch for epoch in epochs}
