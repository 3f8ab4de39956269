"""Measures on this device, in some seconds, the calls that a distillation and its evaluation will make.

Everything runs as in a distillation and an evaluation, at the batch sizes that will occur; what would take too long runs on fewer images.

Legend: n images in a batch.
"""

import hashlib
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d3hr.data.codec import open_upright, png_of, to_pixels, to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import calls_per_prediction, invert
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.grouping import draw_group, search_candidates
from d3hr.distillation.mixture import ClassMixture
from d3hr.evaluation.images import LabelledImages
from d3hr.evaluation.students import new_student
from d3hr.evaluation.training import hard_targets, score_network, train_and_test
from d3hr.execution.memory import device_name, peak_bytes, resident_bytes, total_bytes
from d3hr.execution.worker import name_elsewhere
from d3hr.fileio.staging import StagedFolder
from d3hr.planning.costs import Workload
from d3hr.planning.counting import PriorNeeds, StudentNeeds
from d3hr.planning.measure import LONGEST, Timing, chosen_sizes, measure, seconds_of
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stand_ins import StandIns, stand_ins
from d3hr.prior.conditions import Condition
from d3hr.prior.model import Prior
from d3hr.prior.networks import default_device
from d3hr.prior.schedules.schedule import Point
from d3hr.sets.manifest import Manifest
from d3hr.sets.statistics import StoredMixtures, write_mixtures
from d3hr.sets.writer import write_set

ASSUMED_PREDICTIONS = 10.0
"""Noise predictions of a ``fixed_point`` step if the prior has no weights to measure them with."""
MEMORY_SHARE = 1 / 4
"""No batch is run that would take more than this share of the memory there is."""
_CPU = torch.device("cpu")
_HASHED = 2**25
_WRITTEN = 8
"""Images per class that are written to measure writing."""


@dataclass(frozen=True)
class Measured:
    """What the parts of the work take on a device: a :class:`Timing` for batches of n images, or seconds.

    Attributes:
        stand_ins: how untrained networks that were measured stand in for the prior, in words; empty for the prior itself.
        weights: bytes of weights of the measured networks.
        resident: bytes held before any call.
        read: reading, decoding and resizing a batch.
        inversion_step: one noise prediction and step of a batch, with the guidance of inversion.
        denoising_step: the same with the guidance of denoising.
        search: a search among n candidates for all classes.
        draw: drawing the group of one class.
        keep: writing and reading back the statistics of one class.
        write: writing one image.
        finish: completing a set.
        one_step: a training of one step of n images.
        three_steps: a training of three steps.
        hashing: hashing one byte of weights for a fingerprint.
        predictions_per_step: noise predictions of one inversion step: 1, or more with the ``fixed_point`` solver.
        peak: most bytes held at a time by everything above.
    """

    device: str
    stand_ins: str
    weights: int
    resident: int
    read: Timing
    encode: Timing
    inversion_step: Timing
    denoising_step: Timing
    decode: Timing
    search: Timing
    draw: float
    keep: float
    write: float
    finish: float
    one_step: Timing
    three_steps: Timing
    test: Timing
    hashing: float
    predictions_per_step: float
    peak: int

    @property
    def complete(self) -> bool:
        """Whether every network ran on batches as large as they will be."""
        networks = (self.encode, self.inversion_step, self.denoising_step, self.decode, self.three_steps, self.test)
        return all(timing.complete for timing in networks)


def probe(
    work: Workload, prior: Prior | PriorShape, images: ImageData | None, prior_needs: PriorNeeds, student_needs: StudentNeeds
) -> Measured:
    """Measure the parts of ``work``: of a shape with what stands in for it, without images on noise."""
    standing = stand_ins(prior)
    network, settings = standing.priors[0], work.settings
    memory = MEMORY_SHARE * total_bytes(network.device)
    resident = resident_bytes(network.device)
    real = chosen_sizes(Counter(chain.from_iterable(work.real_batches.values())))
    drawn = chosen_sizes(Counter(work.drawn_batches))
    read_images = _reader(images, work.image_size)
    pixels = torch.rand(max([*real, 1]), 3, work.image_size, work.image_size) * 2 - 1
    noise = torch.randn(max([*real, *drawn]), *network.latent_shape, device=network.device)
    condition = network.denoiser.example
    empty = ClassGaussian.empty(work.dimensions, work.rank)
    rows = max(calls_per_prediction(settings.inversion_guidance), calls_per_prediction(settings.denoising_guidance))
    largest = prior_needs.network.largest_batch(memory / rows)

    def step(guidance: float, sizes: list[int]) -> Timing:
        def timing(network: Prior) -> Timing:
            def run(n: int) -> Tensor:
                return invert(network, noise[:n], condition, level=1, steps=settings.steps, guidance_scale=guidance)

            return measure(run, sizes, network.device, largest=largest)

        return standing.timing(timing)

    def encode(n: int) -> ClassGaussian:
        return empty.update(network.encode(pixels[:n]).flatten(1))

    read = measure(read_images, real, _CPU)
    encoding = measure(encode, real, network.device, largest=prior_needs.encoder.largest_batch(memory))
    inversion_step = step(settings.inversion_guidance, real)
    denoising_step = step(settings.denoising_guidance, drawn)
    decoding = measure(lambda n: network.decode(noise[:n]).cpu(), drawn, network.device, largest=prior_needs.decoder.largest_batch(memory))
    search, draw = _grouping(work, network.device)
    keep, write, finish = _files(work, read_images(1))
    one_step, three_steps, test = _student_runs(work, student_needs, memory)
    return Measured(
        device=device_name(network.device),
        stand_ins=standing.about,
        weights=standing.num_bytes,
        resident=resident,
        read=read,
        encode=encoding,
        inversion_step=inversion_step,
        denoising_step=denoising_step,
        decode=decoding,
        search=search,
        draw=draw,
        keep=keep,
        write=write,
        finish=finish,
        one_step=one_step,
        three_steps=three_steps,
        test=test,
        hashing=seconds_of(lambda: hashlib.sha256(bytes(_HASHED)), _CPU) / _HASHED,
        predictions_per_step=_predictions_per_step(work, standing, read_images, inversion_step),
        peak=peak_bytes(network.device),
    )


def _reader(images: ImageData | None, image_size: int) -> Callable[[int], Tensor]:
    """Return a function that reads n images, different ones each time; without images, it decodes one image of noise n times."""
    if images is not None:
        sized, generator = images.at_size(image_size), torch.Generator().manual_seed(0)
        return lambda n: sized.gather(torch.randint(len(sized), (n,), generator=generator))[0]
    png = png_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (image_size, image_size, 3), dtype=np.uint8)))

    def read(n: int) -> Tensor:
        pixels = [to_pixels(open_upright(png), image_size) for _ in range(n)]
        return to_unit_range(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))

    return read


def _grouping(work: Workload, device: torch.device) -> tuple[Timing, float]:
    """Return how long a search of n candidates takes on a device, in real blocks against all classes, and the seconds to draw one group."""
    if not work.distilled:
        return Timing(), 0.0
    empty = ClassGaussian.empty(work.dimensions, work.rank).truncate_rank()
    gaussians = dict.fromkeys(work.counts, replace(empty, std=empty.std + 1, count=2))

    def search(candidates: int) -> dict[str, int]:
        settings = work.settings.model_copy(update={"num_candidates": candidates})
        return search_candidates(gaussians, settings, device=name_elsewhere(device))

    name, candidate = next(iter(work.counts)), 0 if work.candidates else None
    draw = _median_seconds(lambda: draw_group(name, gaussians[name], work.settings, candidate))
    sizes = {min(work.candidates, blocks * work.block) for blocks in (1, 4)} - {0}
    return measure(search, sizes, device), draw


def _files(work: Workload, image: Tensor) -> tuple[float, float, float]:
    """Return the seconds to write and read the statistics of a class, to write one image such as ``image``, and to complete a set."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, modes = Path(temporary), work.settings.modes
        mixture = ClassMixture((replace(ClassGaussian.empty(work.dimensions, work.rank).truncate_rank(), count=2),) * modes)

        def keep() -> None:
            write_mixtures(folder / "statistics", [mixture])
            StoredMixtures(folder / "statistics", ["a class"], modes=modes, rank=work.rank)

        count = min(work.settings.ipc, _WRITTEN)
        images = image.expand(count, -1, -1, -1)

        def complete(classes: int) -> float:
            names = [str(index) for index in range(classes)]
            manifest = Manifest.of(method="d3hr", class_names=names, ipc=count, image_size=work.image_size, settings={})
            with StagedFolder(folder / f"set{classes}", manifest.key()) as stage:
                return seconds_of(lambda: write_set(stage, manifest, lambda names: ((name, images) for name in names)), _CPU)

        keeping = _median_seconds(keep)
        complete(1)
        two, six = complete(2), complete(6)
    per_class = max(six - two, 0.0) / 4
    return keeping, per_class / count, max(two - 2 * per_class, 0.0)


def _median_seconds(run: Callable[[], object]) -> float:
    return statistics.median(seconds_of(run, _CPU) for _ in range(5))


def _student_runs(work: Workload, needs: StudentNeeds, memory: float) -> tuple[Timing, Timing, Timing]:
    """Return how long trainings of one step and of three steps of n images take, and a test on n images, all of noise."""
    device, names = default_device(), tuple(work.counts)

    def labelled(n: int) -> LabelledImages:
        images = torch.randint(256, (n, 3, work.student_size, work.student_size), dtype=torch.uint8)
        return LabelledImages(images, torch.arange(n) % len(names), names)

    def training(steps: int) -> Timing:
        def train(n: int) -> None:
            short = work.protocol.model_copy(
                update={"steps": steps, "epochs": None, "batch_size": n, "checks": 1, "labels": "hard", "temperature": 1.0}
            )
            noise = labelled(n)
            targets = hard_targets(noise.labels.to(device), len(names))
            train_and_test(noise, labelled(1), student=work.student, protocol=short, targets=targets, seed=0)

        return measure(train, {work.training_batch} - {0}, device, largest=needs.training.largest_batch(memory), least=4)

    network = new_student(work.student, len(names), work.student_size).to(device)
    size = max(work.test_batches, default=0)
    tested = labelled(min(size, needs.test.largest_batch(memory)))

    def test(n: int) -> float:
        return score_network(network, LabelledImages(tested.images[:n], tested.labels[:n], names)).accuracy

    return training(1), training(3), measure(test, {size} - {0}, device, largest=needs.test.largest_batch(memory))


@dataclass
class _PredictionCounter:
    """A prior that counts its predictions."""

    prior: Prior
    count: int = 0

    def __post_init__(self) -> None:
        self.schedule, self.rounding = self.prior.schedule, self.prior.rounding

    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        self.count += 1
        return self.prior.slope(latents, point, condition, guidance_scale)


def _predictions_per_step(work: Workload, standing: StandIns, read: Callable[[int], Tensor], step: Timing) -> float:
    """Return the noise predictions of an inversion step, measured on the first levels only if all would take too long."""
    settings = work.settings
    if settings.solver != "fixed_point":
        return 1.0
    if standing.about:
        return ASSUMED_PREDICTIONS
    n = min(step.seconds)
    level = max(1, min(settings.statistics_level, int(LONGEST / (ASSUMED_PREDICTIONS * step.at(n)))))
    counter = _PredictionCounter(standing.priors[0])
    latents = standing.priors[0].encode(read(n))
    invert(
        counter,
        latents,
        standing.priors[0].denoiser.example,
        level=level,
        steps=settings.steps,
        guidance_scale=settings.inversion_guidance,
        solver=settings.solver,
    )
    return counter.count / level
