"""Trial runs of the work around the prior: reading, searching, writing, training.

Legend: n images in a batch.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d3hr.data import ImageData
from d3hr.decoding import open_upright, to_pixels, to_unit_range
from d3hr.distillation.grouping import draw_group, search_candidates
from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.statistics_file import read_mixtures, write_mixtures
from d3hr.encoding import png_of
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.scoring import TEST_BATCH, Labelled, score_network
from d3hr.evaluation.students import new_student
from d3hr.evaluation.targets import hard_targets
from d3hr.evaluation.training import train_and_test
from d3hr.planning.costs import Workload, training_batch
from d3hr.planning.timing import Timing, measure, seconds_of
from d3hr.prior.model import default_device
from d3hr.set_writing import Origin, write_set
from d3hr.staging import StagedFolder

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
    empty = ClassGaussian.empty(work.dimensions, work.rank).principal()
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
        mixture = ClassMixture((replace(ClassGaussian.empty(work.dimensions, work.rank).principal(), count=2),) * modes)

        def keep() -> None:
            write_mixtures(folder / "statistics", [mixture])
            read_mixtures(folder / "statistics", modes=modes, rank=work.rank)

        count = min(work.settings.ipc, _WRITTEN)
        pictures = picture.expand(count, -1, -1, -1)

        def complete(classes: int) -> float:
            names = [str(index) for index in range(classes)]
            origin = Origin("d3hr", names, count, work.image_size, {}, {}, {}, {})
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

    def labelled(n: int) -> Labelled:
        images = torch.randint(256, (n, 3, side, side), dtype=torch.uint8)
        return Labelled(images, torch.arange(n) % len(names), names)

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
        return score_network(network, Labelled(tested.images[:n], tested.labels[:n], names)).accuracy

    sizes = {min(test_images, TEST_BATCH)} - {0} if work.distilled else set()
    return training(1), training(3), measure(test, sizes, device, largest=largest_test)
