"""What does a comparison of several trainings gain from decoding its test images once, and does its memory grow with the number of sets?

Photos of 500 x 375 pixels are the test images of small students, each trained on a set of its own. Baseline: each training by itself, with
test images that it decodes, while sets stay open. Each run is a fresh process that reports its seconds, its peak memory, and how many
images were decoded.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import d3hr
from benchmarks.harness import argument_parser, in_fresh_process, peak_mib, record, resident_mib, write_photos
from d3hr.comparison.trainings import Entry, Setting, compare_entries, evaluate_once
from d3hr.data.dataset import ImageData
from d3hr.evaluation.protocols import Protocol

CLASSES = tuple(f"class {index}" for index in range(10))
STUDENT_SIDE = 32
GROWTH = 1.1
"""Largest ratio of the peaks above what the process held at first, of all sets and of a quarter of them."""


class Counted:
    """Counts the images that are decoded from then on."""

    def __init__(self) -> None:
        self.count = 0
        decode = ImageData._decode

        def counting(data: ImageData, indices: Any) -> torch.Tensor:
            self.count += 0 if data._kept is not None else len(indices)
            return decode(data, indices)

        ImageData._decode = counting  # type: ignore[method-assign, assignment]


def run(work: Path, sets: int, steps: int, once: bool, out: str) -> dict[str, float]:
    """Train a student on each of the first sets: in a comparison, or (not ``once``) each by itself, as if there were no others."""
    torch.set_num_threads(1)
    test = d3hr.load_images(work / "test")
    opened = [d3hr.DistilledSet.load(work / "sets" / str(seed)) for seed in range(sets)]
    setting = Setting("convnet3", Protocol(name="short", steps=steps, checks=1, batch_size=64, learning_rate=0.01), None, STUDENT_SIDE)
    folder = work / out
    folder.mkdir()
    counted, held, start = Counted(), resident_mib(), time.perf_counter()
    if once:
        compare_entries([Entry(each, [0]) for each in opened], test, [setting], folder=folder)
    else:
        for each in opened:
            assert len(each.images)  # read, and kept as long as the set is open
            evaluate_once(each, test, setting, 0, folder)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_mib() - held, "decoded": counted.count}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--sets", type=int, default=12, help="each is trained on once; a multiple of four")
    parser.add_argument("--ipc", type=int, default=50)
    parser.add_argument("--side", type=int, default=128, help="of the images of the sets, in pixels")
    parser.add_argument("--steps", type=int, default=40, help="of a training")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_photos(work / "test", dict.fromkeys(CLASSES, options.test_images // len(CLASSES)))
        write_photos(work / "train", dict.fromkeys(CLASSES, options.ipc + 10))
        images = d3hr.load_images(work / "train")
        for seed in range(options.sets):
            d3hr.random_real(images, work / "sets" / str(seed), ipc=options.ipc, image_size=options.side, seed=seed)
        kinds = {"before": (options.sets, False), "quarter": (options.sets // 4, True), "after": (options.sets, True)}
        figures = {name: in_fresh_process(run, work, sets, options.steps, once, name) for name, (sets, once) in kinds.items()}
    for name, (sets, _) in kinds.items():
        row = figures[name]
        print(
            f"{name:>8}: {sets:3d} trainings, {row['decoded']:6,} decoded, {row['seconds']:6.1f} s, peak {row['peak_mib']:6.0f} MiB",
            flush=True,
        )
    before, quarter, after = (figures[name] for name in kinds)
    growth = after["peak_mib"] / quarter["peak_mib"]
    print(f"{before['seconds'] / after['seconds']:.2f} times as fast; {growth:.2f} times the memory of a quarter (goal: at most {GROWTH})")
    record("comparison", {**vars(options), "student_side": STUDENT_SIDE, "goal": GROWTH}, figures)


if __name__ == "__main__":
    main()
