"""Sets of the fitted prior against random real images: what students learn from 10 images per class."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from benchmarks.gpu_parts.fit import prior_folder
from benchmarks.gpu_parts.images import images_of
from benchmarks.gpu_parts.worker import Figures, Job, Measurements
from d3hr import DistilledSet, ImageData, Prior, distill, evaluate, random_real
from d3hr.evaluation.protocols import protocol_named
from d3hr.planning.measure import seconds_of

IPC = 10
WAYS = ("random real", "mixture", "mixture with real candidates")


def measurements(job: Job) -> Measurements:
    """Yield the accuracy of a set of each kind, and then of further ones; each set has a seed, and one training on it the same."""
    shutil.rmtree(job.plan.out / "sets", ignore_errors=True)
    images, test = (images_of(job, split) for split in ("train", "test"))
    prior = Prior.from_pretrained(prior_folder(job), dtype="auto")
    for seed in range(job.scale.set_seeds):
        for way in WAYS:
            yield f"{way}, set {seed}", partial(_accuracy, job, images, test, prior, way, seed)


def _accuracy(job: Job, images: ImageData, test: ImageData, prior: Prior, way: str, seed: int) -> Figures:
    out = job.plan.out / "sets" / f"{way.replace(' ', '-')}-{seed}"
    sets: list[DistilledSet] = []
    making = seconds_of(lambda: sets.append(_made(images, prior, way, seed, out)), job.device)
    protocol = protocol_named("hard", ipc=IPC, classes=len(images.class_names))
    if job.scale.training_steps is not None:
        protocol = protocol.model_copy(update={"steps": job.scale.training_steps, "checks": 1})
    evaluations = []
    testing = seconds_of(lambda: evaluations.append(evaluate(sets[0], test, protocol=protocol, seeds=[seed])), job.device)
    return {"accuracy": evaluations[0].runs[0].last_epoch, "seconds_to_make": making, "seconds_to_test": testing}


def _made(images: ImageData, prior: Prior, way: str, seed: int, out: Path) -> DistilledSet:
    if way == "random real":
        return random_real(images, out, ipc=IPC, image_size=prior.image_size, seed=seed)
    if way == "mixture":
        return distill(images, prior, out, ipc=IPC, preset="mixture", seed=seed)
    return distill(images, prior, out, ipc=IPC, candidates="mixed", seed=seed)
