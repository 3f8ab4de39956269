"""Trains a teacher on all the real images; a stopped training continues from its last checkpoint, to the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.errors import SettingsError
from d3hr.evaluation.images import real_images, training_images
from d3hr.evaluation.metrics import score_network
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.targets import Targets, hard_targets
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import seeded_student, train_student
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.model import default_device
from d3hr.progress import SILENT, Progress

IN_MEMORY = 4 * 2**30
"""Bytes of pixels up to which the training images are decoded once and kept in memory; above, every batch is decoded anew."""
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
    progress: Progress = SILENT,
) -> Teacher:
    """Train a network on all of ``images`` with hard labels, and test it once, at the end.

    Args:
        images: the real training images.
        out: folder to write.
        test: real images of the same classes, on which its accuracy is measured.
        student: name of the network.
        protocol: how to train it, or a protocol's name or file.
        image_size: side in pixels that it sees; by default the images' own.
        seed: seed of weights, order and augmentation.
        progress: where to report.

    Returns:
        The teacher, loaded from ``out``.

    Raises:
        ClassMismatch: the classes differ.
        SettingsError: an unknown student or protocol, soft labels, or images too small for the network.
        OutputError: ``out`` holds something else.
        NumericalError: the loss is not finite.
    """
    chosen = protocol_named(protocol, ipc=images.ipc) if isinstance(protocol, str) else protocol
    if chosen.soft:
        raise SettingsError("A teacher learns from hard labels.", found=f"{chosen.labels} labels", hint="use --protocol teacher.")
    sized = images if image_size is None else images.at_size(image_size)
    key = {
        "kind": "teacher",
        "data": images.fingerprint,
        "test": test.fingerprint,
        "student": student,
        "image_size": sized.image_size,
        "protocol": chosen.model_dump(mode="json"),
        "seed": seed,
    }
    with StagedFolder(out, key) as stage:
        if stage.finished:
            return Teacher.load(out)
        network = seeded_student(student, len(images.class_names), sized.image_size, seed)
        tested = real_images(test, images.class_names, sized.image_size)
        train_student(
            network,
            _reader(sized),
            len(images),
            protocol=chosen,
            targets=_targets(images, chosen),
            image_size=sized.image_size,
            seed=seed,
            title=f"training {student}",
            checkpoint=stage.path / _CHECKPOINT,
            progress=progress,
        )
        score = score_network(network, tested)
        about = {
            "protocol": chosen.model_dump(mode="json"),
            "seed": seed,
            "data": {"source": images.source, "split": images.split, "fingerprint": images.fingerprint, "images": len(images)},
            "test": {"source": test.source, "split": test.split, "fingerprint": test.fingerprint, "images": len(test)},
            "accuracy": score.accuracy,
            "top5": score.top5,
        }
        Teacher(network.eval(), student, images.class_names, sized.image_size, about).save(stage.path)
        stage.commit(exclude=(_CHECKPOINT,))
    return Teacher.load(out)


def _reader(images: ImageData) -> Callable[[Tensor], Tensor]:
    """Return a function from positions, int64 [n], to images [n, 3, H, W] in [-1, 1]."""
    if 3 * images.image_size**2 * len(images) <= IN_MEMORY:
        return training_images(images).read
    return lambda positions: images.gather(positions)[0]


def _targets(images: ImageData, protocol: Protocol) -> Targets:
    counts = torch.tensor(list(images.counts.values()))
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
    return hard_targets(labels.to(default_device()), len(counts), protocol.label_smoothing)
