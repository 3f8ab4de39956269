"""Wall-clock time and peak memory of a distillation of 1,000, 10,000 and all images of CIFAR-10, beside what `plan` said before.

Run:   python benchmarks/real_cost.py cifar10 6000      (optimiser steps of the prior)

Every run is planned in one fresh process and made in another, with preset `gentle`. Encoding alone is measured in a third, so that the
share of inversion is what is left of the time that encoding and inversion take together.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from real_data import WORK, images_of, real_data, write_splits
from real_priors import prior_folder
from record import record

from d3hr import Prior, distill
from d3hr.planning.plan import plan
from d3hr.progress import Bar, Silent

SIZES = (1_000, 10_000, None)
"""Images; None is all that are not held out."""
SETTINGS: dict[str, Any] = {"preset": "gentle", "ipc": 10}


class Clock(Silent):
    """Counts the seconds that each bar was open."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Open a bar that shows nothing."""
        started = time.monotonic()
        with super().bar(title, total) as bar:
            yield bar
        self.seconds[title] = self.seconds.get(title, 0.0) + time.monotonic() - started


def first_images(name: str, count: int | None) -> Path:
    """Return a folder of the first images of a data set, as many of each class."""
    if count is None:
        return real_data(name)
    folder = WORK / "data" / f"{name}, {count} images"
    if not folder.is_dir():
        train = datasets.load_dataset(str(real_data(name)), split="train")
        write_splits(folder, {"train": train.train_test_split(train_size=count, stratify_by_column="label", seed=0)["train"]})
    return folder


def planned(images: str, prior: str) -> dict[str, Any]:
    (data,) = images_of(Path(images), "train")
    found = plan(data.counts, Prior.from_pretrained(prior), images=data, evaluation_runs=0, **SETTINGS)
    stages = {stage.name: round(stage.seconds, 1) for stage in found.stages}
    return {"seconds": round(found.distillation_seconds, 1), "peak_mib": round(found.peak_bytes / 2**20), "stages": stages}


def made(images: str, prior: str) -> dict[str, Any]:
    return _distilled(images, prior)


def encoded(images: str, prior: str) -> dict[str, Any]:
    return _distilled(images, prior, level=0, store="statistics")


def _distilled(images: str, prior: str, **changes: Any) -> dict[str, Any]:
    loaded = Prior.from_pretrained(prior)
    clock, started = Clock(), time.monotonic()
    (data,) = images_of(Path(images), "train")
    with tempfile.TemporaryDirectory() as folder:
        distill(data, loaded, Path(folder) / "set", progress=clock, **SETTINGS, **changes)
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "stages": {title: round(seconds, 1) for title, seconds in clock.seconds.items()},
    }


def in_fresh_process(what: str, images: Path, prior: Path) -> dict[str, Any]:
    """Return what one of the functions above answers in a process of its own."""
    command = [sys.executable, __file__, f"--{what}", str(images), str(prior)]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]))


def main(name: str, steps: int) -> None:
    figures = {}
    for count in SIZES:
        images, prior = first_images(name, count), prior_folder(name, steps)
        found = {what: in_fresh_process(what, images, prior) for what in ("planned", "made", "encoded")}
        both, alone = found["made"]["stages"]["inverting images"], found["encoded"]["stages"]["encoding images"]
        total = len(images_of(images, "train")[0])
        figures[total] = {**found, "share_of_inversion": round(max(both - alone, 0) / found["made"]["seconds"], 3)}
        print(f"{total:,} images: {json.dumps(figures[total])}", flush=True)
        record(f"{name}-cost", {**SETTINGS, "prior_steps": steps, "threads": torch.get_num_threads()}, figures)


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        print(json.dumps({"--planned": planned, "--made": made, "--encoded": encoded}[sys.argv[1]](sys.argv[2], sys.argv[3])))
    else:
        main(sys.argv[1], int(sys.argv[2]))
