"""The plan of a distillation: what each stage takes, on this device and shared out over several like it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from d3hr.data import ImageData
from d3hr.distillation.inversion import calls_of_prediction
from d3hr.distillation.settings import distill_settings
from d3hr.errors import DataError, SettingsError, listed
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.scores import SEEDS
from d3hr.evaluation.scoring import TEST_BATCH
from d3hr.planning.costs import Workload, batches_of, longest_share, training_batch, training_steps
from d3hr.planning.counting import PriorNeeds, StudentNeeds, prior_needs, student_needs
from d3hr.planning.memory import total_bytes
from d3hr.planning.probe import ASSUMED_PREDICTIONS, Largest, Measured, probe
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stages import Plan, Stage
from d3hr.prior.conditioning import match_classes
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
    evaluation_runs: int = len(SEEDS),
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
    rows = max(calls_of_prediction(settings.inversion_guidance), calls_of_prediction(settings.denoising_guidance))
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
    held = sum(_weights(some) for some in priors)
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


def composed(
    work: Workload,
    measured: Measured,
    prior: PriorNeeds,
    student: StudentNeeds,
    *,
    protocol: Protocol,
    test_images: int,
    evaluation_runs: int,
    devices: int,
    missing_weights: int = 0,
    stand_ins: bool = False,
) -> Plan:
    """Put what was counted together with what was measured.

    Args:
        work: the distillation.
        measured: seconds of its pieces on this device.
        prior: what the prior takes for one image.
        student: what the student takes for one image.
        protocol: how the student is trained.
        test_images: real images it is tested on.
        evaluation_runs: students to train.
        devices: such devices to share out over.
        missing_weights: bytes of weights that the measured networks had less than the prior.
        stand_ins: whether the measured networks only had the shape of the prior's blocks.
    """
    steps = training_steps(protocol, work.distilled)
    stages = (
        _scan(work, measured),
        Stage("fingerprint the prior", 0, 0, *_alone(prior.weights * measured.hashing)),
        _encode(work, measured, prior, devices),
        _invert(work, measured, prior, devices),
        _group(work, measured),
        _denoise(work, measured, prior, devices),
        _evaluate(work, measured, student, protocol, steps, test_images, evaluation_runs),
    )
    return Plan(
        device=measured.device,
        devices=devices,
        images=work.images,
        classes=len(work.counts),
        distilled=work.distilled,
        stages=stages,
        latent_bytes=work.latent_bytes,
        statistics_bytes=work.statistics_bytes,
        image_bytes=work.pixel_bytes,
        prior_bytes=prior.weights,
        group_bytes=work.group_memory,
        peak_bytes=_peak(work, measured, prior, student, protocol, test_images, missing_weights, stand_ins),
        notes=tuple(_notes(work, measured, test_images, stand_ins)),
    )


def _scan(work: Workload, measured: Measured) -> Stage:
    seconds = sum(measured.read.total(sizes) for sizes in work.read_batches.values())
    return Stage("check the images", 0, 0, *_alone(seconds + measured.read.first))


def _encode(work: Workload, measured: Measured, prior: PriorNeeds, devices: int) -> Stage:
    read = [[*work.clustered_batches[name], *sizes] for name, sizes in work.real_batches.items()]
    seconds = [measured.read.total(sizes) + measured.encode.total(sizes) + measured.keep for sizes in read]
    calls = work.encoder_calls
    return Stage("encode", calls, calls * prior.encoder.flops, *_shared(seconds, measured.encode.first, devices))


def _invert(work: Workload, measured: Measured, prior: PriorNeeds, devices: int) -> Stage:
    seconds = [work.inversion_predictions * measured.inversion_step.total(sizes) for sizes in work.real_batches.values()]
    flops = work.inversion_calls * prior.transformer.flops
    return Stage("invert", work.inversion_calls, flops, *_shared(seconds, measured.inversion_step.first, devices))


def _group(work: Workload, measured: Measured) -> Stage:
    if not work.distilled:
        return Stage("group", 0, 0, 0.0, 0.0)
    search = measured.search.at(work.candidates) + measured.search.first if work.candidates else 0.0
    return Stage("group", 0, work.group_flops, *_alone(search + len(work.counts) * measured.draw))


def _denoise(work: Workload, measured: Measured, prior: PriorNeeds, devices: int) -> Stage:
    sizes = work.drawn_batches
    walk = work.settings.denoising_level * measured.denoising_step.total(sizes)
    of_class = walk + measured.decode.total(sizes) + work.settings.ipc * measured.write if sizes else 0.0
    flops = work.denoising_calls * prior.transformer.flops + work.distilled * prior.decoder.flops
    once = measured.denoising_step.first + measured.decode.first + measured.finish
    return Stage("denoise", work.denoising_calls + work.distilled, flops, *_shared([of_class] * len(work.counts), once, devices))


def _evaluate(
    work: Workload, measured: Measured, student: StudentNeeds, protocol: Protocol, steps: int, test_images: int, runs: int
) -> Stage:
    if not work.distilled or not runs:
        return Stage("evaluate", 0, 0, 0.0, 0.0)
    batch = training_batch(protocol, work.distilled)
    training = measured.one_step.scaled(measured.three_steps, (steps - 1) / 2).at(batch)
    tests = batches_of(test_images, TEST_BATCH)
    checks = min(protocol.checks, steps)
    reading = measured.read.total(batches_of(work.distilled + test_images, work.settings.batch_size))
    once = measured.one_step.first + measured.test.first + reading
    calls = runs * (steps * batch + checks * test_images)
    flops = runs * (steps * batch * student.training.flops + checks * test_images * student.test.flops)
    return Stage("evaluate", calls, flops, *_alone(once + runs * (training + checks * measured.test.total(tests))))


def _peak(
    work: Workload,
    measured: Measured,
    prior: PriorNeeds,
    student: StudentNeeds,
    protocol: Protocol,
    test_images: int,
    missing_weights: int,
    stand_ins: bool,
) -> int:
    """Return what the probe saw plus what it did not hold; where it could not run whole batches, what these would hold."""
    kept = max(work.statistics_memory, 2 * work.pixels * (work.distilled + test_images) if work.distilled else 0)
    if measured.complete and not stand_ins:
        return measured.peak + kept
    settings = work.settings
    real = max(size for sizes in work.real_batches.values() for size in sizes)
    drawn = max(work.drawn_batches, default=0)
    rows = max(real * calls_of_prediction(settings.inversion_guidance), drawn * calls_of_prediction(settings.denoising_guidance))
    activations = max(
        prior.encoder.memory(real),
        prior.transformer.memory(rows),
        prior.decoder.memory(drawn),
        work.group_memory,
        student.training.memory(training_batch(protocol, work.distilled)),
        student.test.memory(min(test_images, TEST_BATCH) if work.distilled else 0),
    )
    return max(measured.peak, measured.resident + activations) + missing_weights + kept


def _notes(work: Workload, measured: Measured, test_images: int, stand_ins: bool) -> list[str]:
    notes = []
    if stand_ins:
        notes.append("times from untrained networks of one and two transformer blocks, extended to the prior's depth")
        notes.append("class names not checked: a shape has none")
        if work.settings.solver == "fixed_point":
            notes.append(f"{ASSUMED_PREDICTIONS:.0f} predictions a fixed-point step assumed: only the prior's weights can tell")
    if not measured.complete:
        notes.append("batches too large for a short probe were extended from smaller ones")
    if work.settings.modes > 1:
        notes.append("clustering not counted, and a search for several modes taken for one of whole groups")
    if work.rank:
        notes.append("finding the directions of the covariances not counted")
    if work.distilled and not test_images:
        notes.append("no test images given: evaluation is training alone")
    return notes


def _alone(seconds: float) -> tuple[float, float]:
    """Return the seconds of what one device does, however many there are."""
    return seconds, seconds


def _shared(of_classes: list[float], once: float, devices: int) -> tuple[float, float]:
    """Return the seconds of classes on one device and shared out, each device setting itself up ``once``."""
    return sum(of_classes) + once, longest_share(of_classes, devices) + once


def _check(counts: Mapping[str, int], test_images: int, evaluation_runs: int, devices: int) -> None:
    small = [f"{name} ({count})" for name, count in counts.items() if count < 2]
    if small or not counts:
        raise DataError(
            "A class needs at least two images, for its spread to be measured.",
            found=listed(small) or "no class",
            do="add images to these classes or remove them.",
        )
    for flag, value, least in (("--test_images", test_images, 0), ("--evaluation_runs", evaluation_runs, 0), ("--devices", devices, 1)):
        if value < least:
            raise SettingsError(f"{flag} is out of range.", found=f"{value}", do=f"give at least {least}.")


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


def _weights(prior: Prior) -> int:
    networks = (prior.transformer, prior.vae)
    return sum(value.numel() * value.element_size() for network in networks for value in network.state_dict().values())
