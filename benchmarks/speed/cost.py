"""Time of ``distill`` by number of images: a straight line, whose slope is the price of an image.

Ten classes of 8-pixel PNG files and an untrained prior of the ``tiny`` preset, preset ``fast`` (level 31 in strides of six: 12 network
calls per image), statistics alone, from the check of the files to the finished folder. Every size is measured in each round, in turn, and
the median taken, in seconds of processor time, which other work on the machine moves little. Prints slope, intercept and R^2, and draws
docs/images/cost.svg.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from scipy.stats import linregress

import d3hr
from benchmarks.harness import DOCS, argument_parser, record, write_random_images, write_untrained_prior
from d3hr.prior.presets import PRESETS

SIZES = (1_000, 2_000, 4_000, 8_000)
ROUNDS = 2
FIGURE = DOCS / "images" / "cost.svg"
NAMES = [f"class {index}" for index in range(10)]


def main(arguments: Sequence[str] | None = None) -> None:
    argument_parser(__doc__).parse_args(arguments)
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for size in SIZES:
            write_random_images(work / f"images{size}", dict.fromkeys(NAMES, size // len(NAMES)), 8)
        write_untrained_prior(work / "prior", PRESETS["tiny"], 8, NAMES)
        prior = d3hr.Prior.from_pretrained(work / "prior")
        d3hr.distill(d3hr.load_images(work / f"images{SIZES[0]}"), prior, work / "warm-up", preset="gentle", level=2, store="statistics")
        for turn in range(ROUNDS):
            for size in SIZES:
                started = time.process_time()
                images = d3hr.load_images(work / f"images{size}")
                d3hr.distill(images, prior, work / f"set{size}-{turn}", preset="fast", store="statistics")
                seconds[size].append(time.process_time() - started)
                print(f"{size:>6,} images: {seconds[size][-1]:.2f} s", flush=True)
    medians = [statistics.median(seconds[size]) for size in SIZES]
    line = linregress(SIZES, medians)
    print(f"{1000 * line.slope:.2f} ms per image, {line.intercept:.2f} s to begin with, R^2 = {line.rvalue**2:.5f} (goal: above 0.99)")
    draw(seconds, line.slope, line.intercept, line.rvalue**2)
    record(
        "cost",
        {"preset": "fast", "store": "statistics", "rounds": ROUNDS, "threads": torch.get_num_threads()},
        {
            "seconds": {str(size): [round(value, 3) for value in values] for size, values in seconds.items()},
            "ms_an_image": round(1000 * line.slope, 4),
            "seconds_to_begin_with": round(line.intercept, 3),
            "r_squared": round(line.rvalue**2, 6),
        },
    )


def draw(seconds: dict[int, list[float]], slope: float, intercept: float, r_squared: float) -> None:
    """Draw the measured times and the fitted line into :data:`FIGURE`."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    label = f"{1000 * slope:.2f} ms per image, $R^2$ = {r_squared:.4f}"
    axes.axline((0, intercept), slope=slope, color="tab:blue", linewidth=1, label=label)
    for size, values in seconds.items():
        axes.plot([size] * len(values), values, "o", color="tab:orange", markersize=4, alpha=0.8)
    axes.set(xlabel="real images", ylabel="seconds of processor time", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
