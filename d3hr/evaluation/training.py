"""Trains a student by a protocol, towards its targets (an image's class, or a teacher's logits), and tests it.

Legend: N training images, n images of a batch, H = W image side, C classes, T temperature.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.data.codec import to_unit_range
from d3hr.data.transfer import to_device
from d3hr.evaluation.augmentation import Mixed, augmentation, mixing
from d3hr.evaluation.images import LabelledImages
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import TrainingResult
from d3hr.evaluation.students import Student, new_student
from d3hr.prior.networks import default_device
from d3hr.prior.trainer import Trainer, decay, even_batches, warm_up
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed, seeded

TEST_BATCH = 500
"""Images per batch of a test."""
TOP = 5
_CPU = torch.device("cpu")
Targets = Callable[[Mixed, Tensor], Tensor]
"""From a mixed batch and the positions, int64 [n], of its images in the set to target probabilities [n, C]."""


@dataclass(frozen=True)
class Score:
    """How well a network names the classes of test images.

    Attributes:
        accuracy: share of images whose class is the most likely one, 0 to 1.
        top5: share of images whose class is among the five most likely; None with five classes or fewer, where it says little.
        confusion: number of images of each true class (row) that were given each class (column).
        hits: a character for each image: "1" if its class is the most likely one, else "0".
    """

    accuracy: float
    top5: float | None
    confusion: tuple[tuple[int, ...], ...]
    hits: str


def train_and_test(
    train: LabelledImages,
    test: LabelledImages,
    *,
    student: str,
    protocol: Protocol,
    targets: Targets,
    seed: int,
    distillation_seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> TrainingResult:
    """Train a student on ``train`` and test it on ``test``, at whose side it works; ``distillation_seed`` is for the record.

    The labels of both mean the same classes. Images of another side are for a protocol that crops them to that of ``test``.
    """
    network = seeded_student(student, len(train.class_names), test.image_size, seed, device)
    checks, scores = check_steps(protocol, train.stored), list[Score]()

    def check(done: int) -> None:
        if done in checks:
            scores.append(score_network(network, test))

    train_student(
        network,
        lambda positions: train.images[positions],
        train.stored,
        of_each=train.of_each,
        protocol=protocol.for_student(student),
        targets=targets,
        image_size=test.image_size,
        seed=seed,
        title=f"training {student}",
        after_step=check,
        progress=progress,
    )
    last, best = scores[-1], max(result.accuracy for result in scores)
    return TrainingResult(last.accuracy, best, last.top5, last.confusion, seed, distillation_seed, last.hits)


def train_student(
    network: nn.Module,
    read: Callable[[Tensor], Tensor],
    count: int,
    *,
    protocol: Protocol,
    targets: Targets,
    image_size: int,
    seed: int,
    title: str,
    of_each: int = 1,
    after_step: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> None:
    """Train a network in place by a protocol.

    Args:
        read: returns the images at positions, int64 [n]: float [n, 3, H, W] in [-1, 1], or their pixels, uint8; called in a thread.
        count: number of stored images, which decides steps and learning rate.
        title: what is trained, for progress and errors.
        of_each: number of images that each of them holds, N / count.
        after_step: called with the number of steps done.
        checkpoint: file to continue from and to save to.
    """
    device = next(network.parameters()).device
    protocol = protocol.on(device, image_size)
    augment, mix = augmentation(protocol, image_size), mixing(protocol)
    batches = even_batches(count, protocol.batch_size, seed, of_each)

    def load(step: int) -> tuple[Tensor, Tensor]:
        positions = batches(step)
        return read(positions), positions

    def loss(batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        images, positions = (to_device(part, device) for part in batch)
        if images.dtype == torch.uint8:
            images = to_unit_range(images)
        with seeded(derive_seed(seed, "step", step), device):
            mixed = mix(augment(images))
            probabilities = targets(mixed, positions)
            with torch.autocast(device.type, torch.bfloat16, enabled=protocol.precision == "bf16"):
                logits = network(mixed.images)
        return student_loss(logits.float(), probabilities, protocol)

    Trainer(
        title,
        network.train(),
        new_optimiser(network, protocol),
        math.prod(protocol.ticks(count)),
        load,
        loss,
        lambda step, fraction: learning_rate_at(protocol, step, count),
        checkpoint=checkpoint,
        after_step=after_step,
        progress=progress,
    ).run()


def seeded_student(name: str, num_classes: int, image_size: int, seed: int, device: torch.device | None = None) -> Student:
    """Return an untrained student, on a device, by default the fastest, whose weights follow from the seed."""
    with seeded(derive_seed(seed, "student")):
        return new_student(name, num_classes, image_size).to(device or default_device())


def check_steps(protocol: Protocol, count: int) -> frozenset[int]:
    """Return the numbers of steps after which a student is tested in a training on ``count`` images; the last is the number of all."""
    ticks, steps_per_tick = protocol.ticks(count)
    steps, gaps = ticks * steps_per_tick, protocol.checks
    if not protocol.best_from:
        return frozenset(round(steps * (check + 1) / gaps) for check in range(gaps)) - {0}
    first, gaps = min(protocol.best_from + 1, ticks) * steps_per_tick, max(gaps - 1, 1)
    return frozenset(steps - round((steps - first) * check / gaps) for check in range(protocol.checks))


def learning_rate_at(protocol: Protocol, step: int, count: int) -> float:
    """Return the learning rate of a step, from 0, in a training on ``count`` images."""
    ticks, steps_per_tick = protocol.ticks(count)
    share = warm_up(step, protocol.warmup * ticks * steps_per_tick)
    return protocol.learning_rate * share * decay(protocol.schedule, step // steps_per_tick, ticks)


def new_optimiser(network: nn.Module, protocol: Protocol) -> torch.optim.Optimizer:
    """Return the optimiser of a network, in two groups of parameters: with weight decay, and without (see ``decay_vectors``)."""
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for parameter in network.parameters():
        (decayed if protocol.decay_vectors or parameter.ndim > 1 else exempt).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": protocol.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    if protocol.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=protocol.learning_rate, betas=(protocol.momentum, 0.999))
    return torch.optim.SGD(groups, lr=protocol.learning_rate, momentum=protocol.momentum, nesterov=protocol.nesterov)


def hard_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Targets:
    """Return targets that are the classes ``labels``, int64 [N], with a share ``smoothing``, 0 to 1, spread evenly over all classes."""
    rows = (1 - smoothing) * torch.eye(num_classes, device=labels.device) + smoothing / num_classes
    return lambda mixed, positions: mixed.targets(rows[labels[positions]])


def stored_targets(logits: Tensor, temperature: float) -> Targets:
    """Return targets softmax(logits / T), of ``logits`` [N, C] that a teacher computed once."""
    rows = F.softmax(logits.float() / temperature, dim=1)
    return lambda mixed, positions: mixed.targets(rows[positions])


def online_targets(teacher: Callable[[Tensor], Tensor], temperature: float) -> Targets:
    """Return targets softmax(logits / T), of the logits [n, C] that ``teacher`` computes for the images of each mixed batch."""
    return lambda mixed, positions: F.softmax(teacher(mixed.images).float() / temperature, dim=1)


def student_loss(logits: Tensor, targets: Tensor, protocol: Protocol) -> Tensor:
    """Return the loss of a student's logits [n, C] against probabilities [n, C], averaged over the batch.

    For hard labels it is the cross-entropy; for soft labels KL(targets || softmax(logits / T)), as in arXiv 2505.18399, without the factor
    T^2 of arXiv 1503.02531.
    """
    if not protocol.soft:
        return F.cross_entropy(logits, targets)
    return F.kl_div(F.log_softmax(logits / protocol.temperature, dim=1), targets, reduction="batchmean")


@torch.no_grad()
def score(predict: Callable[[Tensor], Tensor], test: LabelledImages, device: torch.device = _CPU) -> Score:
    """Return the score of a function from images [n, 3, H, W] in [-1, 1], on a device, to logits [n, C]."""
    ranks, predictions = [], []
    for images, labels in zip(test.images.split(TEST_BATCH), test.labels.split(TEST_BATCH), strict=True):
        logits = predict(to_unit_range(to_device(images, device))).float().cpu()
        predictions.append(logits.argmax(dim=1))
        ranks.append((logits > logits.gather(1, labels[:, None])).sum(dim=1))
    classes, predicted = len(test.class_names), torch.cat(predictions)
    confusion = torch.bincount(test.labels * classes + predicted, minlength=classes**2).view(classes, classes)
    return Score(
        accuracy=int(confusion.diagonal().sum()) / len(test.labels),
        top5=int((torch.cat(ranks) < TOP).sum()) / len(test.labels) if classes > TOP else None,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        hits="".join("01"[right] for right in (predicted == test.labels).tolist()),
    )


def score_network(network: nn.Module, test: LabelledImages) -> Score:
    """Return the score of a network; it is tested in evaluation mode and left in the mode it was in."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    result = score(network, test, device)
    network.train(training)
    return result
