"""What ``plan`` predicts compared with what ``distill`` and ``evaluate`` then take: time and peak memory of three runs.

Every run is planned in one fresh process and carried out in another, on the same images and the same untrained prior, one after the other.
The goal is a total time within 30 % and a peak memory within 20 %. A machine that does other work meanwhile makes the figures worthless.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import d3hr
from benchmarks.harness import argument_parser, in_fresh_process, peak_mib, record, write_random_images, write_untrained_prior
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.planning.plan import plan
from d3hr.prior.presets import PRESETS

TIME_GOAL, MEMORY_GOAL = 0.3, 0.2
SEEDS = (0, 1)
WIDE = PRESETS["small"].model_copy(update={"layers": 8, "heads": 8, "width": 384, "tokens": 64})


@dataclass(frozen=True)
class Case:
    """One run: classes with their counts of random images (None: the digits), a prior, settings, steps of the student."""

    counts: dict[str, int] | None
    size: int
    preset: Any
    test_per_class: int
    settings: dict[str, Any]
    training_steps: int


CASES = {
    "digits": Case(
        None, 8, PRESETS["tiny"], 0, {"ipc": 10, "steps": 10, "level": 6, "inversion_guidance": 1.0, "num_candidates": 10_000}, 60
    ),
    "small": Case(
        {"ant": 80, "bee": 80, "cat": 40, "dog": 20, "elk": 5}, 32, PRESETS["small"], 20, {"ipc": 10, "steps": 16, "level": 4}, 20
    ),
    "wide": Case({"ant": 130, "bee": 100, "cat": 64, "dog": 40, "elk": 9}, 32, WIDE, 20, {"ipc": 10, "steps": 16, "level": 5}, 20),
}
"""Settings left out are the defaults below."""
DEFAULTS = {"preset": "paper", "num_candidates": 10_000}


def settings_of(case: Case) -> dict[str, Any]:
    settings = {**DEFAULTS, **case.settings}
    level = settings.pop("level")
    return {**settings, "statistics_level": level, "denoising_level": level}


def protocol_of(case: Case) -> Protocol:
    return protocol_named("quick").model_copy(update={"steps": case.training_steps})


def prepare(name: str, work: Path) -> None:
    case = CASES[name]
    if case.counts is not None:
        write_random_images(work / "train", case.counts, case.size)
        write_random_images(work / "test", dict.fromkeys(case.counts, case.test_per_class), case.size)
    classes = d3hr.load_images("digits").class_names if case.counts is None else tuple(case.counts)
    write_untrained_prior(work / "prior", case.preset, case.size, classes)


def opened(name: str, work: Path) -> tuple[d3hr.Prior, d3hr.ImageData, d3hr.ImageData]:
    prior = d3hr.Prior.from_pretrained(work / "prior")
    if CASES[name].counts is None:
        return prior, d3hr.load_images("digits"), d3hr.load_images("digits", split="test")
    return prior, d3hr.load_images(work / "train"), d3hr.load_images(work / "test")


def predict(name: str, work: Path) -> dict[str, Any]:
    prior, images, test = opened(name, work)
    case = CASES[name]
    started = time.monotonic()
    planned = plan(
        images.counts,
        prior,
        images=images,
        test_images=len(test),
        protocol=protocol_of(case),
        evaluation_runs=len(SEEDS),
        **settings_of(case),
    )
    return {
        "distill": planned.distillation_seconds,
        "evaluate": planned.stages[-1].seconds,
        "peak_mib": planned.peak_bytes / 2**20,
        "planning": time.monotonic() - started,
        "stages": {stage.name: round(stage.seconds, 3) for stage in planned.stages},
    }


def run(name: str, work: Path) -> dict[str, Any]:
    prior, images, test = opened(name, work)
    case = CASES[name]
    started = time.monotonic()
    distilled = d3hr.distill(images, prior, work / "set", **settings_of(case))
    distilling = time.monotonic() - started
    d3hr.evaluate(distilled, test, protocol=protocol_of(case), seeds=SEEDS)
    return {
        "distill": distilling,
        "evaluate": time.monotonic() - started - distilling,
        "peak_mib": peak_mib(),
    }


def compared(predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, float]:
    """Return predicted / measured."""
    ratios = {key: predicted[key] / measured[key] for key in ("distill", "evaluate", "peak_mib")}
    ratios["total"] = (predicted["distill"] + predicted["evaluate"]) / (measured["distill"] + measured["evaluate"])
    return {key: round(ratio, 3) for key, ratio in ratios.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"one of {', '.join(CASES)}; by default all")
    names = parser.parse_args(arguments).runs or list(CASES)
    figures = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            prepare(name, work)
            predicted, measured = in_fresh_process(predict, name, work), in_fresh_process(run, name, work)
        ratios = compared(predicted, measured)
        met = abs(ratios["total"] - 1) <= TIME_GOAL and abs(ratios["peak_mib"] - 1) <= MEMORY_GOAL
        figures[name] = {"predicted": _rounded(predicted), "measured": _rounded(measured), "predicted / measured": ratios, "goal met": met}
        for key in ("distill", "evaluate", "peak_mib"):
            print(f"{name:>8} {key:>9}: predicted {predicted[key]:8.1f}, measured {measured[key]:8.1f}, ratio {ratios[key]:.2f}")
        print(f"{name:>8}     total: ratio {ratios['total']:.2f}; goal {'met' if met else 'missed'}", flush=True)
    settings = {
        name: {**settings_of(CASES[name]), "counts": CASES[name].counts, "training_steps": CASES[name].training_steps} for name in names
    }
    record("plan_accuracy", {"threads": torch.get_num_threads(), "runs": settings}, figures)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in values.items()}


if __name__ == "__main__":
    main()
