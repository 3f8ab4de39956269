"""Measures on this device, in some seconds, the calls that a distillation will make.

Everything runs as a distillation and an evaluation run it, at the batch sizes they will meet; what would take too long runs on fewer
images.

Legend: n images in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import invert
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.evaluation.protocols import Protocol
from d3hr.execution.memory import device_name, peak_bytes, resident_bytes
from d3hr.planning.costs import Workload, occurring
from d3hr.planning.measure import LONGEST, Timing, chosen_sizes, files, measure, reader, search_and_draw, seconds_of, student_runs
from d3hr.prior.model import Prior

_CPU = torch.device("cpu")
_HASHED = 2**25
ASSUMED_PREDICTIONS = 10.0
"""Noise predictions of a ``fixed_point`` step where the prior has no weights to measure them with."""


@dataclass(frozen=True)
class Largest:
    """The largest batch that memory allows each network of a probe, in images."""

    transformer: int
    encoder: int
    decoder: int
    training: int
    test: int


@dataclass(frozen=True)
class Measured:
    """Seconds that each piece of the work takes on a device.

    Attributes:
        device: what was measured.
        read: reading, decoding and resizing a batch of images.
        encode: encoding a batch.
        inversion_step: one noise prediction and step of a batch, with the guidance of inversion.
        denoising_step: the same with the guidance of denoising.
        decode: decoding a batch.
        search: a search among n candidates for all classes.
        draw: drawing the group of one class.
        keep: writing and reading back the statistics of one class.
        write: writing one image.
        finish: completing a set.
        hashing: putting one byte of weights into a fingerprint.
        one_step: a training of one step of n images.
        three_steps: a training of three steps.
        test: testing a student on n images.
        predictions_per_step: noise predictions of one inversion step.
        resident: bytes held before any call.
        peak: most bytes held at a time by everything above.
    """

    device: str
    read: Timing = field(default_factory=Timing)
    encode: Timing = field(default_factory=Timing)
    inversion_step: Timing = field(default_factory=Timing)
    denoising_step: Timing = field(default_factory=Timing)
    decode: Timing = field(default_factory=Timing)
    search: Timing = field(default_factory=Timing)
    draw: float = 0.0
    keep: float = 0.0
    write: float = 0.0
    finish: float = 0.0
    hashing: float = 0.0
    one_step: Timing = field(default_factory=Timing)
    three_steps: Timing = field(default_factory=Timing)
    test: Timing = field(default_factory=Timing)
    predictions_per_step: float = 1.0
    resident: int = 0
    peak: int = 0

    @property
    def complete(self) -> bool:
        """Whether every network ran on batches as large as they will be."""
        networks = (self.encode, self.inversion_step, self.denoising_step, self.decode, self.three_steps, self.test)
        return all(timing.complete for timing in networks)


def probe(
    work: Workload,
    priors: Sequence[Prior],
    layers: int,
    images: ImageData | None,
    *,
    student: str,
    protocol: Protocol,
    test_images: int,
    largest: Largest,
) -> Measured:
    """Measure the pieces of ``work``.

    Args:
        work: the distillation.
        priors: the prior; or two stand-ins for it, of one transformer block and of two.
        layers: transformer blocks of the prior that two stand in for.
        images: the real images; without them a picture of noise is read instead.
        student: the network to evaluate with.
        protocol: how it is trained.
        test_images: real images it is tested on.
        largest: what memory allows.
    """
    prior, settings = priors[0], work.settings
    resident = resident_bytes(prior.device)
    real, drawn = chosen_sizes(occurring(work.real_batches.values())), chosen_sizes(occurring([work.drawn_batches]))
    read = reader(images, work.image_size)
    pictures = torch.rand(max([*real, 1]), 3, work.image_size, work.image_size) * 2 - 1
    noise = torch.randn(max([*real, *drawn]), *prior.latent_shape, device=prior.device)
    labels = torch.zeros(len(noise), dtype=torch.int64)
    empty = ClassGaussian.empty(work.dimensions, work.rank)

    def step_of(guidance: float, sizes: list[int]) -> Timing:
        def timing(some: Prior) -> Timing:
            def step(n: int) -> Tensor:
                return invert(some, noise[:n], labels[:n], level=1, steps=settings.steps, guidance_scale=guidance)

            return measure(step, sizes, some.device, largest=largest.transformer)

        first = timing(prior)
        return first if len(priors) == 1 else first.scaled(timing(priors[1]), layers - 1)

    reading = measure(read, real, _CPU)
    encoding = measure(lambda n: empty.update(prior.encode(pictures[:n]).flatten(1)), real, prior.device, largest=largest.encoder)
    inversion = step_of(settings.inversion_guidance, real)
    denoising = step_of(settings.denoising_guidance, drawn)
    decoding = measure(lambda n: prior.decode(noise[:n]).cpu(), drawn, prior.device, largest=largest.decoder)
    search, draw = search_and_draw(work)
    keep, write, finish = files(work, read(1))
    one_step, three_steps, test = student_runs(
        work, student, protocol, test_images, largest_training=largest.training, largest_test=largest.test
    )
    return Measured(
        device=device_name(prior.device),
        read=reading,
        encode=encoding,
        inversion_step=inversion,
        denoising_step=denoising,
        decode=decoding,
        search=search,
        draw=draw,
        keep=keep,
        write=write,
        finish=finish,
        hashing=seconds_of(lambda: hashlib.sha256(bytes(_HASHED)), _CPU) / _HASHED,
        one_step=one_step,
        three_steps=three_steps,
        test=test,
        predictions_per_step=_predictions_per_step(work, priors, read, inversion),
        resident=resident,
        peak=peak_bytes(prior.device),
    )


@dataclass
class _Counting:
    """Counts the noise predictions of a prior."""

    prior: Prior
    count: int = 0

    def __post_init__(self) -> None:
        self.schedule = self.prior.schedule

    def predict_noise(self, latents: Tensor, timestep: int, labels: Tensor, guidance_scale: float = 1.0) -> Tensor:
        self.count += 1
        return self.prior.predict_noise(latents, timestep, labels, guidance_scale)


def _predictions_per_step(work: Workload, priors: Sequence[Prior], read: Callable[[int], Tensor], step: Timing) -> float:
    """Return the noise predictions that an inversion step takes, on the first levels if all would take too long."""
    settings = work.settings
    if settings.solver != "fixed_point":
        return 1.0
    if len(priors) > 1:
        return ASSUMED_PREDICTIONS
    n = min(step.seconds)
    level = max(1, min(settings.statistics_level, int(LONGEST / (ASSUMED_PREDICTIONS * step.at(n)))))
    counting = _Counting(priors[0])
    latents = priors[0].encode(read(n))
    labels = torch.zeros(n, dtype=torch.int64)
    invert(counting, latents, labels, level=level, steps=settings.steps, guidance_scale=settings.inversion_guidance, solver=settings.solver)
    return counting.count / level
