"""The plan of a distillation: what each stage takes, on this device and shared out over several like it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import calls_per_prediction
from d3hr.distillation.settings import distill_settings
from d3hr.errors import DataError, SettingsError, listed
from d3hr.evaluation.evaluate import TRAINING_SEEDS
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.execution.memory import total_bytes
from d3hr.planning.composing import composed
from d3hr.planning.costs import Workload
from d3hr.planning.counting import PriorNeeds, StudentNeeds, prior_needs, student_needs
from d3hr.planning.probe import Largest, probe
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stages import Plan
from d3hr.prior.class_matching import match_classes
from d3hr.prior.model import Prior, default_device

_SHARE = 4
"""A probe runs no batch that would take more than one part in so many of the memory there is."""


def plan(
    counts: Mapping[str, int],
    prior: Prior | PriorShape,
    *,
    images: ImageData | None = None,
    test_images: int = 0,
    ipc: int = 10,
    preset: str = "paper",
    store: Literal["images", "statistics"] = "images",
    class_map: Mapping[str, str] | None = None,
    student: str = "convnet3",
    protocol: str | Protocol = "hard",
    student_size: int | None = None,
    evaluation_runs: int = len(TRAINING_SEEDS),
    devices: int = 1,
    **changes: Any,
) -> Plan:
    """Say what :func:`d3hr.distill` and :func:`d3hr.evaluate` will cost, from counts and some seconds of measuring on this device.

    Args:
        counts: real images of each class.
        prior: the prior; or only its shape, for which random networks of one and two transformer blocks are measured instead.
        images: the real images, to measure how fast they are read.
        test_images: real images that students are tested on.
        ipc: distilled images per class.
        preset: preset of the distillation.
        store: what is kept, ``images`` or ``statistics`` alone.
        class_map: class -> prior's class, for classes whose names do not match.
        student: network to evaluate with.
        protocol: how it is trained.
        student_size: side, in pixels, that students see; by default that of the distilled images.
        evaluation_runs: students to train.
        devices: such devices to share encoding, inversion and denoising out over, a class at a time.
        changes: settings that differ from the preset's, by the names of :class:`~d3hr.distillation.settings.DistillSettings`, and
            ``level``, for both levels at once.

    Raises:
        ClassMismatch: the prior lacks a class.
        DataError: no class, or a class of fewer than two images.
        SettingsError: a setting is unknown or out of range.
    """
    settings = distill_settings(preset, ipc=ipc, **changes)
    chosen = protocol_named(protocol, ipc=ipc) if isinstance(protocol, str) else protocol
    _check(counts, test_images, evaluation_runs, devices)
    shape = prior if isinstance(prior, PriorShape) else PriorShape.of(prior)
    if isinstance(prior, Prior):
        match_classes(list(counts), prior.class_names, of="the data", class_map=class_map)
        prior.schedule.grid(settings.steps)
        priors = [prior]
    else:
        priors = [prior.with_layers(layers).untrained() for layers in (1, 2)]
    of_prior, of_student = prior_needs(shape), student_needs(student, len(counts), student_size or shape.image_size)
    work = Workload(counts, settings, shape.dimensions, shape.image_size, student_size, keeps_images=store == "images")
    rows = max(calls_per_prediction(settings.inversion_guidance), calls_per_prediction(settings.denoising_guidance))
    with torch.random.fork_rng():
        measured = probe(
            work,
            priors,
            shape.layers,
            images,
            student=student,
            protocol=chosen,
            test_images=test_images,
            largest=_largest(of_prior, of_student, rows),
        )
    held = sum(some.num_bytes for some in priors)
    return composed(
        work.at_pace(measured.predictions_per_step),
        measured,
        of_prior,
        of_student,
        protocol=chosen,
        test_images=test_images,
        evaluation_runs=evaluation_runs,
        devices=devices,
        missing_weights=max(of_prior.weights - held, 0) if isinstance(prior, PriorShape) else 0,
        stand_ins=isinstance(prior, PriorShape),
    )


def _check(counts: Mapping[str, int], test_images: int, evaluation_runs: int, devices: int) -> None:
    small = [f"{name} ({count})" for name, count in counts.items() if count < 2]
    if small or not counts:
        raise DataError(
            "A class needs at least two images, for its spread to be measured.",
            found=listed(small) or "no class",
            hint="add images to these classes or remove them.",
        )
    for flag, value, least in (("--test_images", test_images, 0), ("--evaluation_runs", evaluation_runs, 0), ("--devices", devices, 1)):
        if value < least:
            raise SettingsError(f"{flag} is out of range.", found=f"{value}", hint=f"give at least {least}.")


def _largest(prior: PriorNeeds, student: StudentNeeds, rows: int) -> Largest:
    """Return the batches that stay within a share of the memory there is."""
    room = total_bytes(default_device()) / _SHARE

    def fitting(activations: int) -> int:
        return max(1, math.floor(room / max(activations, 1)))

    return Largest(
        transformer=fitting(rows * prior.transformer.activations),
        encoder=fitting(prior.encoder.activations),
        decoder=fitting(prior.decoder.activations),
        training=fitting(student.training.activations),
        test=fitting(student.test.activations),
    )
