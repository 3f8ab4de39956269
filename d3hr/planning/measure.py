"""How long calls take on a device, by the size of their batch.

Legend: n images in a batch.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d3hr.data.codec import open_upright, png_of, to_pixels, to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.grouping import draw_group, search_candidates
from d3hr.distillation.mixture import ClassMixture
from d3hr.evaluation.images import LabelledImages
from d3hr.evaluation.metrics import TEST_BATCH, score_network
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.students import new_student
from d3hr.evaluation.targets import hard_targets
from d3hr.evaluation.training import train_and_test
from d3hr.fileio.staging import StagedFolder
from d3hr.planning.costs import Workload, training_batch
from d3hr.prior.model import default_device
from d3hr.sets.statistics import read_mixtures, write_mixtures
from d3hr.sets.writer import Origin, write_set

REPEATS = 9
"""Largest number of repeats whose median counts; three at least of what is not slow."""
ALLOWED = 0.4
"""Seconds that repeats of one size may take."""
LONGEST = 3.0
"""Seconds that a call may take to be made at all; a longer one is extrapolated from a smaller batch."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call at several batch sizes.

    Attributes:
        seconds: median seconds of a call, by batch size.
        first: seconds that the first calls took beyond the median: a device sets itself up for each size once.
        complete: whether every size asked for was run.
    """

    seconds: Mapping[int, float] = field(default_factory=dict)
    first: float = 0.0
    complete: bool = True

    def at(self, size: int) -> float:
        """Return the seconds of a call of ``size`` images, on the line through the two measured sizes nearest to it.

        Below the smallest a call takes as long as the smallest; beyond a single measured size it takes time in proportion.
        """
        known = sorted(self.seconds.items())
        if not known:
            return 0.0
        (largest, longest), (before, shorter) = known[-1], known[-2] if len(known) > 1 else (0, 0.0)
        if size > largest:
            return longest + max(longest - shorter, 0.0) / (largest - before) * (size - largest)
        return float(np.interp(size, [n for n, _ in known], [seconds for _, seconds in known]))

    def total(self, sizes: Iterable[int]) -> float:
        """Return the seconds of one call of each of ``sizes``, without :attr:`first`."""
        return sum(self.at(size) for size in sizes)

    def scaled(self, other: Timing, factor: float) -> Timing:
        """Return self + factor * (other - self), size by size: a line through two networks of different depth."""
        seconds = {size: value + factor * max(other.at(size) - value, 0.0) for size, value in self.seconds.items()}
        return Timing(seconds, self.first + factor * max(other.first - self.first, 0.0), self.complete and other.complete)


def chosen_sizes(occurrences: Mapping[int, int], limit: int = 4) -> list[int]:
    """Return the batch sizes to measure: the smallest, the largest, and those most images are in."""
    if len(occurrences) <= limit:
        return sorted(occurrences)
    ends = {min(occurrences), max(occurrences)}
    rest = sorted((size for size in occurrences if size not in ends), key=lambda size: size * occurrences[size], reverse=True)
    return sorted({*ends, *rest[: limit - 2]})


def measure(run: Callable[[int], Any], sizes: Iterable[int], device: torch.device, *, largest: int | None = None, least: int = 1) -> Timing:
    """Measure ``run(n)`` for each n of ``sizes``, ascending; sizes that would take too long or too much memory are left out.

    Args:
        run: the call.
        sizes: batch sizes.
        device: where the call runs.
        largest: the largest size that memory allows.
        least: the size that is run in any case, beside 1, so that a fixed part shows as such.
    """
    seconds: dict[int, float] = {}
    first, complete, cost = 0.0, True, 0.0
    wanted = sorted(sizes)
    if wanted and wanted[0] > 1 and (once := seconds_of(lambda: run(1), device)) * wanted[-1] > LONGEST:
        # Dear, unless that first call was mostly the device setting itself up.
        cost = seconds_of(lambda: run(1), device)
        first = max(once - cost, 0.0)
        if 2 * cost > LONGEST:
            seconds = {size: seconds_of(lambda: run(size), device) for size in {least} - {1}}  # noqa: B023
            return Timing({1: cost, **seconds}, first, complete=False)
    for size in wanted:
        fitting = min(size, largest or size, max(1, int(LONGEST / cost)) if cost * size > LONGEST else size)
        complete = complete and fitting == size
        if fitting not in seconds:
            warm_up, seconds[fitting] = _repeated(run, fitting, device)
            first += max(warm_up - seconds[fitting], 0.0)
            cost = seconds[fitting] / fitting
    return Timing(seconds, first, complete)


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that ``run`` takes, its work on the device included."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _repeated(run: Callable[[int], Any], size: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds of the first call and the median of the following ones."""
    warm_up = seconds_of(lambda: run(size), device)
    taken: list[float] = []
    while not taken or (len(taken) < REPEATS and sum(taken) < (LONGEST / 2 if len(taken) < 3 else ALLOWED)):
        taken.append(seconds_of(lambda: run(size), device))
    return warm_up, statistics.median(taken)


_CPU = torch.device("cpu")
_WRITTEN = 8
"""Images of a class that are written to measure writing."""


def reader(images: ImageData | None, image_size: int) -> Callable[[int], Tensor]:
    """Return a function that reads n images, others each time; where there are none, it decodes one picture of noise n times."""
    if images is not None:
        sized, order = images.at_size(image_size), torch.Generator().manual_seed(0)
        return lambda n: sized.gather(torch.randint(len(sized), (n,), generator=order))[0]
    png = png_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (image_size, image_size, 3), dtype=np.uint8)))

    def read(n: int) -> Tensor:
        pixels = [to_pixels(open_upright(png), image_size) for _ in range(n)]
        return to_unit_range(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))

    return read


def search_and_draw(work: Workload) -> tuple[Timing, float]:
    """Return how long a search of n candidates takes, in real blocks against all classes, and the seconds to draw one group."""
    if not work.distilled:
        return Timing(), 0.0
    empty = ClassGaussian.empty(work.dimensions, work.rank).truncate_rank()
    gaussians = dict.fromkeys(work.counts, replace(empty, std=empty.std + 1, count=2))

    def search(candidates: int) -> dict[str, int]:
        return search_candidates(gaussians, work.settings.model_copy(update={"num_candidates": candidates}))

    name, candidate = next(iter(work.counts)), 0 if work.candidates else None
    draws = [seconds_of(lambda: draw_group(name, gaussians[name], work.settings, candidate), _CPU) for _ in range(5)]
    sizes = {min(work.candidates, blocks * work.block) for blocks in (1, 4)} - {0}
    return measure(search, sizes, _CPU), statistics.median(draws)


def files(work: Workload, picture: Tensor) -> tuple[float, float, float]:
    """Return the seconds to write and read the statistics of a class, to write one image such as ``picture``, and to complete a set."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        modes = work.settings.modes
        mixture = ClassMixture((replace(ClassGaussian.empty(work.dimensions, work.rank).truncate_rank(), count=2),) * modes)

        def keep() -> None:
            write_mixtures(folder / "statistics", [mixture])
            read_mixtures(folder / "statistics", modes=modes, rank=work.rank)

        count = min(work.settings.ipc, _WRITTEN)
        pictures = picture.expand(count, -1, -1, -1)

        def complete(classes: int) -> float:
            names = [str(index) for index in range(classes)]
            origin = Origin("d3hr", names, count, work.image_size, {})
            with StagedFolder(folder / f"set{classes}", origin.key()) as stage:
                return seconds_of(lambda: write_set(stage, origin, lambda names: ((name, pictures) for name in names)), _CPU)

        keeping = statistics.median(seconds_of(keep, _CPU) for _ in range(5))
        complete(1)
        two, six = complete(2), complete(6)
    of_class = max(six - two, 0.0) / 4
    return keeping, of_class / count, max(two - 2 * of_class, 0.0)


def student_runs(
    work: Workload, student: str, protocol: Protocol, test_images: int, *, largest_training: int, largest_test: int
) -> tuple[Timing, Timing, Timing]:
    """Return how long trainings of one step and of three steps of n images take, and a test on n images, all of noise."""
    device, names = default_device(), tuple(work.counts)
    side = work.student_size or work.image_size

    def labelled(n: int) -> LabelledImages:
        images = torch.randint(256, (n, 3, side, side), dtype=torch.uint8)
        return LabelledImages(images, torch.arange(n) % len(names), names)

    def training(steps: int) -> Timing:
        def train(n: int) -> None:
            short = protocol.model_copy(
                update={"steps": steps, "epochs": None, "batch_size": n, "checks": 1, "labels": "hard", "temperature": 1.0}
            )
            noise = labelled(n)
            targets = hard_targets(noise.labels.to(device), len(names))
            train_and_test(noise, labelled(1), student=student, protocol=short, targets=targets, seed=0)

        return measure(train, {training_batch(protocol, work.distilled)} - {0}, device, largest=largest_training, least=4)

    network = new_student(student, len(names), side).to(device)
    tested = labelled(min(test_images, TEST_BATCH, largest_test))

    def test(n: int) -> float:
        return score_network(network, LabelledImages(tested.images[:n], tested.labels[:n], names)).accuracy

    sizes = {min(test_images, TEST_BATCH)} - {0} if work.distilled else set()
    return training(1), training(3), measure(test, sizes, device, largest=largest_test)
