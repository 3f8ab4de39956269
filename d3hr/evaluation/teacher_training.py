"""Trains a teacher on all the real images; a training that is stopped goes on from its last checkpoint to the same weights."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.errors import SettingsError
from d3hr.evaluation.images import real_images, training_images
from d3hr.evaluation.metrics import score_network
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.targets import hard_targets
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import Training, seeded_student
from d3hr.fileio.atomic import load_if_valid, read_checkpoint, write_tensors
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.trainer import optimiser_tensors, restore_optimiser
from d3hr.progress import SILENT, Progress

CHECKPOINT_SECONDS = 60.0
IN_MEMORY = 4 * 2**30
"""Bytes of pixels up to which the training images are decoded once and held; above, every batch is decoded anew."""
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
    """Train a network on all of ``images`` with hard labels, and measure it once, at the end, on ``test``.

    Args:
        images: the real training images.
        out: folder to write.
        test: real images of the same classes.
        student: name of the network.
        protocol: how to train it, or a protocol's name or file.
        image_size: side in pixels that it sees; by default the images' own.
        seed: seed of weights, order and augmentation.
        progress: where to report.

    Raises:
        ClassMismatch: the classes differ.
        SettingsError: an unknown student or protocol, soft labels, or images too small for the network.
        OutputError: ``out`` holds something else.
    """
    per_class = len(images) // len(images.class_names)
    chosen = protocol_named(protocol, ipc=per_class) if isinstance(protocol, str) else protocol
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
        training = _training(sized, student, chosen, seed)
        tested = real_images(test, images.class_names, sized.image_size)
        _train(training, stage.path / _CHECKPOINT, f"training {student}", progress)
        found = score_network(training.network, tested)
        about = {
            "protocol": chosen.model_dump(mode="json"),
            "seed": seed,
            "data": {"source": images.source, "split": images.split, "fingerprint": images.fingerprint, "images": len(images)},
            "test": {"source": test.source, "split": test.split, "fingerprint": test.fingerprint, "images": len(test)},
            "accuracy": found.accuracy,
            "top5": found.top5,
        }
        network = training.network.eval()
        Teacher(network, student, images.class_names, sized.image_size, about).save(stage.path)  # type: ignore[arg-type]
        stage.commit(exclude=(_CHECKPOINT,))
    return Teacher.load(out)


def _training(images: ImageData, student: str, protocol: Protocol, seed: int) -> Training:
    labels = torch.repeat_interleave(torch.arange(len(images.class_names)), torch.tensor(list(images.counts.values())))
    network = seeded_student(student, len(images.class_names), images.image_size, seed)
    if 3 * images.image_size**2 * len(images) <= IN_MEMORY:
        read = training_images(images).read
    else:
        read = lambda positions: images.gather(positions)[0]  # noqa: E731
    device = next(network.parameters()).device
    targets = hard_targets(labels.to(device), len(images.class_names), protocol.label_smoothing)
    return Training(network, read, len(images), images.image_size, protocol, targets, seed)


def _train(training: Training, checkpoint: Path, title: str, progress: Progress) -> None:
    found = load_if_valid(checkpoint, read_checkpoint, progress)
    if found is not None:
        _resume(training, *found)
        progress.say(f"going on at step {training.step} of {training.steps}")
    saved = time.monotonic()
    with progress.bar(title, training.steps) as bar:
        while training.step < training.steps:
            loss = training.advance()
            if training.at_check or training.step % 50 == 0:
                training.require_finite(loss)
                bar.update(training.step, note=f"loss {float(loss):.3f}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(training, checkpoint)
                saved = time.monotonic()
    _save(training, checkpoint)


def _save(training: Training, path: Path) -> None:
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in training.network.state_dict().items()}
    write_tensors(path, tensors | optimiser_tensors(training.optimiser), {"step": str(training.step)})


def _resume(training: Training, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    training.step = int(about["step"])
    training.network.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    restore_optimiser(training.optimiser, tensors)
