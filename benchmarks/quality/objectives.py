"""Which objective a new prior should learn: the same small transformer trained on noise, on v and on the velocity of a flow, by steps.

One autoencoder per data set, and one teacher whose features images are compared in, serve all objectives. A step costs the same for each,
so equal steps are equal minutes. Everything is measured on held-out training images, at levels of the same sigma / alpha: level 5 (preset
``mixture``) and level 31 (that of the paper, without guidance) of the grid of noise prediction, and those of a flow that are next to them.

Fits and trainings are kept in benchmarks/work/objectives, so a stopped run continues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import datasets
import torch

from benchmarks.harness import WORK, argument_parser, kept_rows, record
from benchmarks.quality.real_matrix import PROTOCOLS
from benchmarks.quality.real_priors import PRESET
from benchmarks.real_data import NAMES, images_of, real_data, write_splits
from d3hr import ImageData, Prior, fit_prior
from d3hr.comparison.matrix import Matrix, matrix_from
from d3hr.comparison.run import compare
from d3hr.diagnostics.distances import Measures
from d3hr.diagnostics.neighbours import support
from d3hr.diagnostics.roundtrip import round_trip
from d3hr.diagnostics.spaces import Array, FeatureSpace, feature_space
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.tasks import generate_images
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.fileio.atomic import read_json, write_json
from d3hr.methods.job import MethodInputs
from d3hr.prior.networks import SCHEDULER_CONFIG
from d3hr.prior.schedules.reading import read_schedule
from d3hr.prior.schedules.schedule import Schedule
from d3hr.prior.settings import Objective
from d3hr.progress import OnTerminal
from d3hr.seeds import generator_for

IMAGE_SIZE, TRAIN = 16, 1000
"""Side in pixels and training images of each class: a small part of the cost of the other benchmarks."""
NETWORK, BATCH = "tiny", 64
"""Preset of the transformers, whose other settings are the preset's, and images of one step."""
AUTOENCODER_STEPS, TEACHER_STEPS = 2000, 150
STEPS = 50
LOW, HIGH, MIDDLE = 5, 31, 25
"""Levels of the presets ``mixture``, ``paper`` and ``gentle``, of the grid of noise prediction."""
PER_CLASS, SAMPLE = 100, 50
"""Images of each class that statistics come from, and that are drawn, or taken of the real ones, to be compared."""
HERE = WORK / "objectives"
PROGRESS = OnTerminal()


def fewer_images(name: str) -> Path:
    """Return a folder of the data set with so many training images of each class, and the images that are held out."""
    folder = HERE / "data" / name
    if not folder.is_dir():
        parts = datasets.load_dataset(str(real_data(name)))
        count = TRAIN * parts["train"].features["label"].num_classes
        train = parts["train"].train_test_split(train_size=count, stratify_by_column="label", seed=0)
        write_splits(folder, {"train": train["train"], "validation": parts["validation"]})
    return folder


def level_like(schedule: Schedule, level: int) -> int:
    """Return the level of a schedule whose sigma / alpha is nearest, in its logarithm, to that of a level of noise prediction."""
    wanted = read_schedule(SCHEDULER_CONFIG).points(STEPS)[level]
    points = schedule.points(STEPS)
    ratio = math.log(wanted.sigma / wanted.alpha)
    return min(
        (place for place, point in enumerate(points) if point.sigma and point.alpha),
        key=lambda place: abs(math.log(points[place].sigma / points[place].alpha) - ratio),
    )


def fitted(name: str, images: ImageData, objective: Objective, steps: int, seed: int) -> Prior:
    """Fit, or load, a prior behind the data set's autoencoder."""
    autoencoder = HERE / f"{name}-autoencoder"
    fit_prior(
        images, autoencoder, preset=PRESET, autoencoder_steps=AUTOENCODER_STEPS, steps=1, image_size=IMAGE_SIZE, precision="fp32",
        progress=PROGRESS,
    )  # fmt: skip
    return fit_prior(
        images,
        HERE / f"{name}-{objective}-{steps}-{seed}",
        preset=NETWORK,
        autoencoder=autoencoder,
        objective=objective,
        steps=steps,
        batch_size=BATCH,
        image_size=IMAGE_SIZE,
        precision="fp32",
        latent_cache=HERE / f"{name}-latents",
        seed=seed,
        progress=PROGRESS,
    )


def teacher_space(name: str, images: ImageData, validation: ImageData) -> FeatureSpace:
    """Return the features of a ConvNet-3 trained for a short time on all training images."""
    changes = {
        "name": "teacher",
        "epochs": None,
        "steps": TEACHER_STEPS,
        "batch_size": BATCH,
        "precision": "fp32",
        "checks": 1,
        "flip": False,
    }
    protocol = protocol_named("teacher").model_copy(update=changes)
    teacher = train_teacher(images, HERE / f"{name}-teacher", test=validation, student="convnet3", protocol=protocol, progress=PROGRESS)
    return feature_space(teacher=teacher)


def real_points(space: FeatureSpace, images: ImageData) -> tuple[Array, Array]:
    """Return the features of held-out images of each class, and of as many others."""
    halves = [images.pick(each, range(2 * SAMPLE)).split(SAMPLE) for each in images.class_names]
    return space.points(torch.cat([first for first, _ in halves])), space.points(torch.cat([second for _, second in halves]))


def overlap(real: Array, points: Array) -> dict[str, float | None]:
    """Return how points [K, D] overlap with real ones [N, D], and the Frechet distance between them."""
    return {**asdict(support(real, points)), "frechet": Measures(real, 0).of(points)["frechet"]}


def matrix_of(name: str, schedule: Schedule) -> Matrix:
    """Return the two sets that are made of each prior."""
    exact = {"preset": "gentle", "max_images_per_class": PER_CLASS}
    low, high = level_like(schedule, LOW), level_like(schedule, HIGH)
    rows = [
        {"name": "mixture", "method": "d3hr", "settings": {"preset": "mixture", "level": low, "max_images_per_class": PER_CLASS}},
        {"name": "one mode, level 31", "method": "d3hr", "settings": {**exact, "level": high}},
    ]
    protocol = Path(__file__).parent.parent / "protocols" / f"{PROTOCOLS[name]}-fp32.yaml"
    return matrix_from({"methods": rows, "ipc": [10], "distillation_seeds": [0], "protocols": [str(protocol)]})


def cell(name: str, images: ImageData, validation: ImageData, space: FeatureSpace, which: tuple[Objective, int, int]) -> dict[str, Any]:
    """Return the figures of one prior: objective, optimiser steps, seed."""
    file = HERE / f"{name}-{'-'.join(map(str, which))}.json"
    if file.is_file():
        kept: dict[str, Any] = read_json(file)["figures"]
        return kept
    prior = fitted(name, images, *which)
    points, levels = prior.schedule.points(STEPS), {level: level_like(prior.schedule, level) for level in (LOW, MIDDLE, HIGH)}
    trip = round_trip(
        validation,
        prior,
        prior.denoiser.match(validation.class_names, of=name),
        distill_settings("gentle", steps=STEPS, level=levels[MIDDLE]),
    )
    drawn = [
        generate_images(
            prior,
            torch.randn(SAMPLE, *prior.latent_shape, generator=generator_for(0, "objectives", each)),
            condition,
            level=STEPS - 1,
            steps=STEPS,
            guidance_scale=1.0,
        )
        for each, condition in prior.conditions(validation.class_names).items()
    ]
    matrix = matrix_of(name, prior.schedule)
    inputs = MethodInputs(images, IMAGE_SIZE, prior=prior)
    comparison = compare(matrix, inputs, validation, HERE / f"{file.stem}-sets", progress=PROGRESS)
    figures = {
        "objective": which[0],
        "steps": which[1],
        "seed": which[2],
        "levels": levels,
        "ratios": {level: round(points[near].sigma / points[near].alpha, 3) for level, near in levels.items()},
        "round_trip_db": trip.psnr_db,
        "autoencoder_db": trip.autoencoder_psnr_db,
        "drawn": overlap(real_points(space, validation)[0], space.points(torch.cat(drawn))),
        "rows": kept_rows(comparison.rows, "class_names"),
    }
    write_json(file, {"figures": figures})
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES, nargs="+")
    parser.add_argument("--steps", type=int, nargs="+", required=True, help="optimiser steps of the transformers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the fits")
    options = parser.parse_args(arguments)
    HERE.mkdir(parents=True, exist_ok=True)
    parts: dict[str, tuple[ImageData, ImageData, FeatureSpace]] = {}
    figures: dict[str, dict[str, Any]] = {}
    for seed in options.seeds:
        for steps in options.steps:
            for name in options.data:
                if name not in parts:
                    images, validation = (part.at_size(IMAGE_SIZE) for part in images_of(fewer_images(name), "train", "validation"))
                    space = teacher_space(name, images, validation)
                    parts[name] = images, validation, space
                    figures[name] = {"real": overlap(*real_points(space, validation)), "priors": []}
                for objective in get_args(Objective):
                    figures[name]["priors"].append(cell(name, *parts[name], (objective, steps, seed)))
                    settings = {
                        "image_size": IMAGE_SIZE,
                        "train_per_class": TRAIN,
                        "network": NETWORK,
                        "batch_size": BATCH,
                        "autoencoder": {"preset": PRESET, "steps": AUTOENCODER_STEPS},
                        "teacher": read_json(HERE / f"{name}-teacher" / "teacher.json")["accuracy"],
                        "images_per_class": PER_CLASS,
                        "drawn_per_class": SAMPLE,
                        "protocol": f"{PROTOCOLS[name]}-fp32",
                    }
                    record(f"{name}-objectives-validation", settings, figures[name])


if __name__ == "__main__":
    main()
