"""How sure a network is of each image's own class: by a teacher, or, without one, by quick networks that have not seen the image.

Probabilities of a data set are a mapping: class -> float32 [N, C] of its images in their order, columns in the order of the mapping.

Legend: N images of a class, C classes.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.data.decoded import decoded
from d3hr.errors import SettingsError
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import TEST_BATCH, hard_targets, seeded_student, train_student
from d3hr.fileio.atomic import load_if_valid, read_tensors, write_tensors
from d3hr.fileio.checksums import digest_of
from d3hr.prior.networks import default_device
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed, generator_for

IMAGE_SIZE = 16
"""Largest side, in pixels, at which quick networks see the images, unless another is asked for."""
FOLDS = 2


def teacher_probabilities(teacher: Teacher, images: ImageData, progress: Progress = SILENT) -> dict[str, Tensor]:
    """Return the probabilities that a teacher of the same classes (else ``ClassMismatch``) gives to all images; it reads each once."""
    teacher.require_classes(images.class_names, images.source)
    sized, done, result = images.at_size(teacher.image_size), 0, dict[str, Tensor]()
    with progress.bar(f"asking {teacher.student}", len(images)) as bar:
        for name in sized.class_names:
            parts = []
            for batch in sized.batches(name, TEST_BATCH):
                parts.append(teacher.logits(batch, sized.class_names).float().softmax(dim=1).cpu())
                bar.update(done := done + len(batch), note=name)
            result[name] = torch.cat(parts)
    return result


def cross_validated_probabilities(
    images: ImageData,
    folder: Path,
    *,
    student: str = "convnet3",
    protocol: str | Protocol = "confidence",
    folds: int = FOLDS,
    image_size: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Tensor]:
    """Return the probabilities that networks give to images which they were not trained on.

    Each class is divided into ``folds`` parts, as even as can be, by (seed, class name); the images of a part are judged by a network
    trained on all others.

    Args:
        images: the images; each is decoded once.
        folder: an existing folder that keeps the probabilities of finished folds, by all that decides them; a stopped run goes on from
            there, and files of other settings do no harm.
        student: the networks.
        protocol: how to train them on hard labels, or a protocol's name or file.
        folds: number of parts, at least 2.
        image_size: side in pixels that they see; by default the images' own, at most :data:`IMAGE_SIZE`.
        seed: seed of the division and of the trainings.

    Raises:
        SettingsError: an unknown student or protocol, soft labels, fewer than two folds, or too small images.
    """
    protocol = protocol_named(protocol, ipc=images.ipc, classes=len(images.class_names)).for_student(student)
    if protocol.soft:
        raise SettingsError("Cross-validation needs hard labels.", found=f"{protocol.labels} labels", hint="use --protocol confidence.")
    if folds < 2:
        raise SettingsError("Cross-validation needs at least two folds.", found=f"{folds}", hint="use 2 or more.")
    sized = images.at_size(image_size or min(images.image_size, IMAGE_SIZE))
    key = digest_of(
        {"data": images.fingerprint, "student": student, "protocol": protocol.model_dump(mode="json"), "folds": folds}
        | {"image_size": sized.image_size, "seed": seed}
    )
    fold_of = _folds(sized.counts, folds, seed)
    files = [folder / f"probabilities-{key[:16]}-{fold + 1}-of-{folds}.safetensors" for fold in range(folds)]
    found = [load_if_valid(file, read_tensors, progress) for file in files]
    kept = sized if None not in found else decoded(sized, folder, progress)
    probabilities = torch.empty(len(sized), len(sized.class_names))
    for fold, file in enumerate(files):
        tensors = found[fold]
        if tensors is None:
            tensors = {"probabilities": _judged(kept, fold_of != fold, student, protocol, derive_seed(seed, "fold", fold), progress)}
            write_tensors(file, tensors)
        probabilities[fold_of == fold] = tensors["probabilities"]
    return dict(zip(sized.class_names, probabilities.split(list(sized.counts.values())), strict=True))


def own_confidence(probabilities: Tensor, class_index: int) -> Tensor:
    """Return the probability [N], 0 to 1, that images of one class have of it, from theirs of all classes [N, C]."""
    return probabilities[:, class_index]


def doubtful(probabilities: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return for each class which of its images, bool [N], look like another one: confident learning (arXiv 1911.00068, section 3.1).

    The threshold of a class is its mean probability among its own images. Of the classes whose threshold an image reaches, the most
    probable is what it looks like; one that reaches none, or looks like several alike, keeps its label. The probabilities should be of
    networks that have not seen the image, whose mistakes in its label they would repeat.
    """
    thresholds = torch.stack([own_confidence(rows, index).double().mean() for index, rows in enumerate(probabilities.values())])
    result = {}
    for index, (name, rows) in enumerate(probabilities.items()):
        reached = rows.double().where(rows.double() >= thresholds, -1.0)
        result[name] = reached.amax(dim=1) > reached[:, index]
    return result


def _folds(counts: Mapping[str, int], folds: int, seed: int) -> Tensor:
    """Return the fold, int64 [all images], of each image, class by class; a class's own do not depend on the other classes."""
    parts = []
    for name, count in counts.items():
        fold_of = torch.empty(count, dtype=torch.int64)
        fold_of[torch.randperm(count, generator=generator_for(seed, "folds", name))] = torch.arange(count) % folds
        parts.append(fold_of)
    return torch.cat(parts)


def _judged(images: ImageData, training: Tensor, student: str, protocol: Protocol, seed: int, progress: Progress) -> Tensor:
    """Return the probabilities [n, C] of the n images outside ``training``, bool [all images], by a network trained on those inside."""
    network = seeded_student(student, len(images.class_names), images.image_size, seed)
    device = default_device()
    inside, outside = training.nonzero()[:, 0], (~training).nonzero()[:, 0]
    counts = torch.tensor(list(images.counts.values()))
    labels = torch.repeat_interleave(torch.arange(len(counts)), counts)[inside].to(device)
    train_student(
        network,
        lambda positions: images.gather(inside[positions], as_pixels=True)[0],
        len(inside),
        protocol=protocol,
        targets=hard_targets(labels, len(counts), protocol.label_smoothing),
        image_size=images.image_size,
        seed=seed,
        title=f"judging images by {student}",
        progress=progress,
    )
    network.eval()
    with torch.no_grad():
        parts = [network(images.gather(positions)[0].to(device)).float().softmax(dim=1).cpu() for positions in outside.split(TEST_BATCH)]
    return torch.cat(parts)
