"""The plan of a distillation: what each stage costs, on this device and on several like it."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import calls_per_prediction, num_predictions
from d3hr.distillation.presets import DistillOptions, distill_settings
from d3hr.distillation.tasks import require_grid, require_two_images
from d3hr.errors import SettingsError, require_at_least
from d3hr.evaluation.evaluate import TRAINING_SEEDS
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.training import check_steps
from d3hr.planning.costs import FLOAT32, FLOAT64, Workload, batches_of, longest_share
from d3hr.planning.counting import PriorNeeds, StudentNeeds, prior_needs, student_needs
from d3hr.planning.probe import ASSUMED_PREDICTIONS, Measured, probe
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stages import CHECK, EVALUATE, Plan, Stage
from d3hr.prior.model import Prior
from d3hr.prior.networks import default_device
from d3hr.seeds import seeded


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
    **options: Unpack[DistillOptions],
) -> Plan:
    """Predict what :func:`d3hr.distill` and :func:`d3hr.evaluate` will cost, from counts and some seconds of measuring on this device.

    Args:
        counts: real images of each class.
        prior: the prior; or only its shape, for which untrained networks are measured instead (:mod:`d3hr.planning.stand_ins`).
        images: the real images, to measure how fast they are read.
        test_images: real images that students are tested on.
        ipc: distilled images per class.
        preset: preset of the distillation.
        store: what is kept, ``images`` or ``statistics`` alone.
        class_map: class -> prior's class, for classes whose names do not match.
        student: network to evaluate with.
        protocol: how it is trained.
        student_size: side, in pixels, of the images that students see; by default that of the distilled images.
        evaluation_runs: students to train.
        devices: devices like this one that share encoding, inversion and denoising, one class at a time.
        options: settings that differ from the preset's, as for :func:`d3hr.distill`; those that decide no cost are only checked.

    Raises:
        ClassMismatch: the prior lacks a class.
        DataError: no class, or a class of fewer than two images.
        SettingsError: a setting is unknown or out of range.
    """
    settings = distill_settings(preset, ipc=ipc, **options)
    if settings.real_images:
        found = f"candidates {settings.candidates}"
        raise SettingsError("A plan is of drawn images alone.", found=found, hint="just choose: without a prior it takes minutes.")
    protocol = protocol_named(protocol, ipc=ipc, classes=len(counts)) if isinstance(protocol, str) else protocol
    require_two_images(counts)
    require_at_least("--test-images", test_images, 0)
    require_at_least("--evaluation-runs", evaluation_runs, 0)
    require_at_least("--devices", devices)
    shape = prior if isinstance(prior, PriorShape) else PriorShape.of(prior)
    if isinstance(prior, Prior):
        prior.denoiser.match(list(counts), of="the data", class_map=class_map)
        require_grid(prior.schedule, settings)
    if shape.condition.key is None:  # given nothing of a class, it is not guided
        settings = settings.model_copy(update={"inversion_guidance": 1.0, "denoising_guidance": 1.0})
    work = Workload(
        counts,
        settings,
        shape.dimensions,
        shape.image_size,
        student=student,
        protocol=protocol,
        student_size=student_size or shape.image_size,
        test_images=test_images,
        evaluation_runs=evaluation_runs,
        keeps_images=store == "images",
    )
    needs = prior_needs(shape), student_needs(student, len(counts), work.student_size)
    with seeded(0, default_device()):
        measured = probe(work, prior, images, *needs)
    return combine(work, measured, *needs, devices=devices)


def combine(work: Workload, measured: Measured, prior: PriorNeeds, student: StudentNeeds, *, devices: int) -> Plan:
    """Return the plan that follows from counts, from measurements on this device, and from what the networks take for one image."""
    reading = sum(measured.read.total(sizes) for sizes in work.batches(work.counts).values()) + measured.read.first
    return Plan(
        device=measured.device,
        devices=devices,
        images=sum(work.counts.values()),
        classes=len(work.counts),
        distilled=work.distilled,
        stages=(
            _unshared(CHECK, reading),
            _unshared("fingerprint the prior", prior.weights * measured.hashing),
            _encode(work, measured, prior, devices),
            _invert(work, measured, prior, devices),
            _group(work, measured),
            _denoise(work, measured, prior, devices),
            _evaluate(work, measured, student),
        ),
        latent_bytes=work.matched * work.dimensions * FLOAT32,
        statistics_bytes=work.statistics * (FLOAT32 if work.settings.statistics_dtype == "float32" else FLOAT32 // 2),
        image_bytes=work.distilled * work.pixel_bytes,
        prior_bytes=prior.weights,
        group_bytes=work.group_memory,
        peak_bytes=_peak_bytes(work, measured, prior, student),
        notes=tuple(_notes(work, measured)),
    )


def _unshared(name: str, seconds: float, calls: int = 0, flops: int = 0) -> Stage:
    """Return a stage that runs on one device, whatever the number of devices."""
    return Stage(name, calls, flops, seconds, seconds)


def _shared(name: str, seconds_of_classes: Sequence[float], setup: float, devices: int, calls: int, flops: int) -> Stage:
    """Return a stage whose classes are shared among devices; each device takes ``setup`` seconds once."""
    return Stage(name, calls, flops, sum(seconds_of_classes) + setup, longest_share(seconds_of_classes, devices) + setup)


def _encode(work: Workload, measured: Measured, prior: PriorNeeds, devices: int) -> Stage:
    batches = [[*work.clustered_batches[name], *sizes] for name, sizes in work.real_batches.items()]
    seconds = [measured.read.total(sizes) + measured.encode.total(sizes) + measured.keep for sizes in batches]
    calls = sum(map(sum, batches))
    return _shared("encode", seconds, measured.encode.first, devices, calls, calls * prior.encoder.flops)


def _invert(work: Workload, measured: Measured, prior: PriorNeeds, devices: int) -> Stage:
    settings, step = work.settings, measured.inversion_step
    predictions = num_predictions(settings.inversion_level, settings.inversion_stride, settings.solver) * measured.predictions_per_step
    seconds = [predictions * step.total(sizes) for sizes in work.real_batches.values()]
    calls = round(work.matched * predictions * calls_per_prediction(settings.inversion_guidance))
    return _shared("invert", seconds, step.first, devices, calls, calls * prior.network.flops)


def _group(work: Workload, measured: Measured) -> Stage:
    if not work.distilled:
        return _unshared("group", 0.0)
    search = measured.search.at(work.candidates) + measured.search.first if work.candidates else 0.0
    products = 2 if work.settings.ipc >= 2 else 1  # of all candidates with all classes
    flops = products * 2 * work.candidates * work.coordinates * len(work.counts)
    return _unshared("group", search + len(work.counts) * measured.draw, flops=flops)


def _denoise(work: Workload, measured: Measured, prior: PriorNeeds, devices: int) -> Stage:
    settings, sizes = work.settings, work.drawn_batches
    predictions = num_predictions(settings.denoising_level, solver=settings.solver)
    steps = predictions * measured.denoising_step.total(sizes)
    seconds = steps + measured.decode.total(sizes) + settings.ipc * measured.write if sizes else 0.0
    setup = measured.denoising_step.first + measured.decode.first + measured.finish
    calls = work.distilled * predictions * calls_per_prediction(settings.denoising_guidance)
    flops = calls * prior.network.flops + work.distilled * prior.decoder.flops
    return _shared("denoise", [seconds] * len(work.counts), setup, devices, calls + work.distilled, flops)


def _evaluate(work: Workload, measured: Measured, student: StudentNeeds) -> Stage:
    runs, batch = work.evaluation_runs, work.training_batch
    if not work.distilled or not runs:
        return _unshared(EVALUATE, 0.0)
    steps = math.prod(work.protocol.ticks(work.distilled))
    training = measured.one_step.scaled(measured.three_steps, (steps - 1) / 2).at(batch)
    checks = len(check_steps(work.protocol, work.distilled))
    reading = measured.read.total(batches_of(work.distilled + work.test_images, work.settings.batch_size))
    setup = measured.one_step.first + measured.test.first + reading
    calls = runs * (steps * batch + checks * work.test_images)
    flops = runs * (steps * batch * student.training.flops + checks * work.test_images * student.test.flops)
    return _unshared(EVALUATE, setup + runs * (training + checks * measured.test.total(work.test_batches)), calls, flops)


def _peak_bytes(work: Workload, measured: Measured, prior: PriorNeeds, student: StudentNeeds) -> int:
    """Return the peak of the probe plus what it did not hold; if it could not run whole batches, plus what these would hold."""
    of_class = work.statistics // len(work.counts) * FLOAT64  # one class at a time
    kept = max(of_class, 2 * work.pixel_bytes * (work.distilled + work.test_images) if work.distilled else 0)
    if measured.complete and not measured.stand_ins:
        return measured.peak + kept
    settings = work.settings
    real = max(size for sizes in work.real_batches.values() for size in sizes)
    drawn = max(work.drawn_batches, default=0)
    rows = max(real * calls_per_prediction(settings.inversion_guidance), drawn * calls_per_prediction(settings.denoising_guidance))
    activations = max(
        prior.encoder.memory(real),
        prior.network.memory(rows),
        prior.decoder.memory(drawn),
        work.group_memory,
        student.training.memory(work.training_batch),
        student.test.memory(max(work.test_batches, default=0)),
    )
    missing_weights = max(prior.weights - measured.weights, 0)
    return max(measured.peak, measured.resident + activations) + missing_weights + kept


def _notes(work: Workload, measured: Measured) -> list[str]:
    notes = {
        measured.stand_ins: measured.stand_ins,
        "class names not checked, and text encoders not counted: of a shape there are none": measured.stand_ins,
        f"{ASSUMED_PREDICTIONS:.0f} predictions a fixed-point step assumed: only the prior's weights can tell": (
            measured.stand_ins and work.settings.solver == "fixed_point"
        ),
        "batches too large for a short probe were extended from smaller ones": not measured.complete,
        "clustering not counted, and a search for several modes taken for one of whole groups": work.settings.modes > 1,
        "finding the directions of the covariances not counted": work.rank > 0,
        "no test images given: evaluation is training alone": bool(work.distilled) and not work.test_images,
    }
    return [note for note, applies in notes.items() if applies]
