"""Which walk to the statistics level may be called `fast`? Chosen on the digits' validation split; the test split is not touched.

Measures the class statistics with each candidate's inversion, against those of `paper`. Then draws sets from them as `paper` does, and
trains on them; sets and trainings are paired: candidate and `paper` have the same seeds. Candidates that the rule rules out by their
statistics, or by a cheaper one that holds, are not trained on. Everything finished is kept in the work folder and used again, and the
figures are written after every candidate.

The rule, stated before any figure was seen: of the candidates whose statistics are within TOLERANCE of `paper`'s (mean in sigma, std as
a share) and whose accuracy is not below `paper`'s by more than the standard error of the paired difference, the one with the fewest
network calls per image.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import d3hr
from benchmarks.harness import WORK, argument_parser, record, write_digits
from d3hr.comparison.trainings import Setting, evaluate_once
from d3hr.distillation.ddim import calls_per_prediction, num_predictions
from d3hr.distillation.presets import distill_settings
from d3hr.evaluation.protocols import protocol_named
from d3hr.progress import OnTerminal

TOLERANCE = 0.1
DRAWS, TRAININGS, IPC = 3, 2, 10
COMMON: dict[str, Any] = {"preset": "paper", "num_candidates": 10_000}
"""A hundredth of the paper's candidate groups, for `paper` and candidates alike: the search is not in question."""
CANDIDATES: dict[str, dict[str, Any]] = {
    "paper": {},
    "ddim, stride 4": {"inversion_stride": 4},
    "ddim, stride 4, guidance 1": {"inversion_stride": 4, "inversion_guidance": 1.0},
    "ddim, stride 6": {"inversion_stride": 6},
    "ddim, stride 5": {"inversion_stride": 5},
    "ddim, stride 3": {"inversion_stride": 3},
    "ddim, guidance 1": {"inversion_guidance": 1.0},
}


def root_mean_square(values: list[torch.Tensor]) -> float:
    return float(torch.cat(values).square().mean().sqrt())


def deviation(gaussians: Mapping[str, d3hr.ClassGaussian], paper: Mapping[str, d3hr.ClassGaussian]) -> dict[str, float]:
    """Return how far the statistics of all classes are from the paper's: of means in sigma, of stds as a share."""
    pairs = [(gaussians[name], paper[name]) for name in paper]
    return {
        "mean_in_sigma": root_mean_square([(one.mean - other.mean) / other.std for one, other in pairs]),
        "std_share": root_mean_square([one.std / other.std - 1 for one, other in pairs]),
    }


def standard_errors(gaussians: Mapping[str, d3hr.ClassGaussian]) -> dict[str, float]:
    """Return what the finite number of images leaves uncertain, for Gaussian latents: sigma / sqrt(N), sigma / sqrt(2 (N - 1))."""
    counts = [gaussian.count for gaussian in gaussians.values()]
    return {
        "mean_in_sigma": statistics.fmean(1 / n for n in counts) ** 0.5,
        "std_share": statistics.fmean(1 / (2 * (n - 1)) for n in counts) ** 0.5,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("work", nargs="?", type=Path, default=WORK / "fast_preset", help="folder for everything that is finished")
    parser.add_argument("--images-per-class", type=int, help="measure on the first training images of each class only")
    options = parser.parse_args(arguments)
    work, per_class = options.work, options.images_per_class
    progress = OnTerminal()
    digits, validation = d3hr.load_images("digits"), d3hr.load_images("digits", split="validation")
    prior = d3hr.fit_prior(digits, work.parent / "digits_prior", progress=progress)
    images = digits if per_class is None else write_digits(work / f"first-{per_class}", per_class=per_class)
    sets_of_images = work / f"{len(images)} images"
    setting = Setting("convnet3", protocol_named("quick"))
    (work / "trainings").mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    chosen: str | None = None

    def statistics_of(name: str) -> d3hr.DistilledSet:
        return d3hr.distill(
            images, prior, sets_of_images / name / "statistics", store="statistics", progress=progress, **COMMON, **CANDIDATES[name]
        )

    def accuracies_of(name: str) -> list[float]:
        measured = statistics_of(name)
        sets = [d3hr.expand(measured, prior, sets_of_images / name / f"set{draw}", ipc=IPC, seed=draw) for draw in range(DRAWS)]
        seeds = [(draw, TRAININGS * draw + training) for draw in range(DRAWS) for training in range(TRAININGS)]
        return [evaluate_once(sets[draw], validation, setting, seed, work / "trainings").accuracy_mean for draw, seed in seeds]

    def keep() -> None:
        settings = {"tolerance": TOLERANCE, "draws": DRAWS, "trainings": TRAININGS, "ipc": IPC, "images": len(images), **COMMON}
        figures = {"standard_errors": standard_errors(paper), "rows": rows, "chosen": chosen}
        record("fast_preset", {**settings, "candidates": CANDIDATES}, figures)

    paper = statistics_of("paper").statistics
    scale = standard_errors(paper)
    print(f"standard error of paper's statistics: {scale['mean_in_sigma']:.3f} sigma, std {100 * scale['std_share']:.1f} %")
    for name, changes in CANDIDATES.items():
        settings = distill_settings(**{**COMMON, **changes})
        predictions = num_predictions(settings.inversion_level, settings.inversion_stride)
        off = deviation(statistics_of(name).statistics, paper)
        calls = predictions * calls_per_prediction(settings.inversion_guidance)
        rows[name] = {"calls": calls, "deviation": off, "within_tolerance": max(off.values()) < TOLERANCE}
        mark = "within tolerance" if rows[name]["within_tolerance"] else ""
        print(
            f"{name:32s} {calls:3d} calls  mean off by {off['mean_in_sigma']:.3f} sigma, std by {100 * off['std_share']:.1f} %  {mark}",
            flush=True,
        )
        keep()
    expected = rows["paper"]["accuracies"] = accuracies_of("paper")
    for name in sorted((name for name in rows if rows[name]["within_tolerance"]), key=lambda name: int(rows[name]["calls"])):
        accuracies = accuracies_of(name)
        pairs = [one - other for one, other in zip(accuracies, expected, strict=True)]
        # Trainings of one set are not independent.
        gaps = [statistics.fmean(pairs[start : start + TRAININGS]) for start in range(0, len(pairs), TRAININGS)]
        difference, error = statistics.fmean(gaps), statistics.stdev(gaps) / len(gaps) ** 0.5
        rows[name] |= {"accuracies": accuracies, "difference": difference, "standard_error": error}
        print(
            f"{name:32s} accuracy {100 * statistics.fmean(accuracies):.1f}, paper {100 * statistics.fmean(expected):.1f}, "
            f"difference {100 * difference:+.1f} ± {100 * error:.1f}",
            flush=True,
        )
        chosen = name if difference >= -error else None
        keep()
        if chosen:
            break
    print(f"chosen: {chosen}")


if __name__ == "__main__":
    main()
