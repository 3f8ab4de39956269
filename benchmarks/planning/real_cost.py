"""Wall-clock time and peak memory of distilling 1,000, 10,000 and all images of a data set, next to what `plan` predicted.

Every run is planned in one fresh process and carried out in another, with preset `gentle`. Encoding alone is measured in a third, so that
the share of inversion is what is left of the time that encoding and inversion take together.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch

from benchmarks.harness import WORK, argument_parser, in_fresh_process, peak_mib, record
from benchmarks.quality.real_priors import add_prior_arguments, prior_folder
from benchmarks.real_data import images_of, real_data, write_splits
from d3hr import Prior, distill
from d3hr.planning.plan import plan
from d3hr.progress import Bar, Progress

SIZES = (1_000, 10_000, None)
"""Images; None is all that are not held out."""
SETTINGS: dict[str, Any] = {"preset": "gentle", "ipc": 10}


class Clock(Progress):
    """Counts the seconds that each bar was open."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        """Open a bar that shows nothing."""
        started = time.monotonic()
        with super().bar(title, total) as bar:
            yield bar
        self.seconds[title] = self.seconds.get(title, 0.0) + time.monotonic() - started


def first_images(name: str, count: int | None) -> Path:
    """Return a folder of the first images of a data set, the same number of each class."""
    if count is None:
        return real_data(name)
    folder = WORK / "data" / f"{name}, {count} images"
    if not folder.is_dir():
        train = datasets.load_dataset(str(real_data(name)), split="train")
        write_splits(folder, {"train": train.train_test_split(train_size=count, stratify_by_column="label", seed=0)["train"]})
    return folder


def planned(images: Path, prior: Path) -> dict[str, Any]:
    (data,) = images_of(images, "train")
    prediction = plan(data.counts, Prior.from_pretrained(prior), images=data, evaluation_runs=0, **SETTINGS)
    stages = {stage.name: round(stage.seconds, 1) for stage in prediction.stages}
    return {"seconds": round(prediction.distillation_seconds, 1), "peak_mib": round(prediction.peak_bytes / 2**20), "stages": stages}


def measured(images: Path, prior: Path, **changes: Any) -> dict[str, Any]:
    loaded = Prior.from_pretrained(prior)
    clock, started = Clock(), time.monotonic()
    (data,) = images_of(images, "train")
    with tempfile.TemporaryDirectory() as folder:
        distill(data, loaded, Path(folder) / "set", progress=clock, **SETTINGS, **changes)
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": round(peak_mib()),
        "stages": {title: round(seconds, 1) for title, seconds in clock.seconds.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    add_prior_arguments(parser)
    options = parser.parse_args(arguments)
    name, steps = options.data, options.prior
    figures = {}
    for count in SIZES:
        images, prior = first_images(name, count), prior_folder(name, steps)
        run = {
            "planned": in_fresh_process(planned, images, prior),
            "made": in_fresh_process(measured, images, prior),
            "encoded": in_fresh_process(measured, images, prior, level=0, store="statistics"),
        }
        both, alone = run["made"]["stages"]["inverting images"], run["encoded"]["stages"]["encoding images"]
        total = len(images_of(images, "train")[0])
        figures[total] = {**run, "share_of_inversion": round(max(both - alone, 0) / run["made"]["seconds"], 3)}
        print(f"{total:,} images: {json.dumps(figures[total])}", flush=True)
        record(f"{name}-cost", {**SETTINGS, "prior_steps": steps, "threads": torch.get_num_threads()}, figures)


if __name__ == "__main__":
    main()
