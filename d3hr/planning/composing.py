"""The plan that follows from what was counted and what was measured."""

from __future__ import annotations

from d3hr.distillation.ddim import calls_per_prediction
from d3hr.evaluation.metrics import TEST_BATCH
from d3hr.evaluation.protocols import Protocol
from d3hr.planning.costs import Workload, batches_of, longest_share, training_batch, training_steps
from d3hr.planning.counting import PriorNeeds, StudentNeeds
from d3hr.planning.probe import ASSUMED_PREDICTIONS, Measured
from d3hr.planning.stages import Plan, Stage


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
    rows = max(real * calls_per_prediction(settings.inversion_guidance), drawn * calls_per_prediction(settings.denoising_guidance))
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
