"""Does a prior fitted on half of the classes help on the other half? Held-out denoising loss at equal steps.

Fits the ``tiny`` prior on the digits 0 to 4, then trains on 5 to 9 for equal numbers of steps and images: from that prior (all weights),
from that prior (LoRA), and from scratch with that prior's autoencoder, so that all predict noise in the same latents. Each has the
learning rate, of three, that suits it best. The loss is the mean squared error of the predicted noise on validation digits 5 to 9, with the
same timesteps and noise for every row. Everything finished is kept in the work folder and used again.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import d3hr
from benchmarks.harness import WORK, argument_parser, record, write_digits
from d3hr.prior.schedules.variance_preserving import VariancePreserving
from d3hr.progress import OnTerminal
from d3hr.seeds import generator_for

FIRST, SECOND = ("0", "1", "2", "3", "4"), ("5", "6", "7", "8", "9")
STEPS = (50, 100, 200, 400)
RATES = (2e-4, 6e-4, 2e-3)
BATCH = 128
DRAWS = 32
"""Pairs of timestep and noise for each validation image."""


def held_out_loss(prior: d3hr.Prior, images: d3hr.ImageData) -> float:
    """Return the mean squared error of the predicted noise, the same questions for every prior."""
    generator = generator_for("finetuning", "questions")
    pixels, labels = images.gather(range(len(images)))
    names = [prior.class_names.index(name) for name in images.class_names]
    z, y = prior.encode(pixels), torch.tensor(names)[labels]
    errors = []
    for timestep in torch.linspace(10, 990, DRAWS).long().tolist():
        eps = torch.randn(z.shape, generator=generator)
        assert isinstance(prior.schedule, VariancePreserving)
        point = prior.schedule.at(timestep)
        predicted = prior.slope(point.alpha * z + point.sigma * eps, point, y)
        errors.append(float((predicted - eps).square().mean()))
    return sum(errors) / len(errors)


def curve(folder: Path) -> list[tuple[int, float]]:
    with (folder / "loss.csv").open(newline="", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file) if row["network"] == "transformer"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("work", nargs="?", type=Path, default=WORK / "finetuning", help="folder for everything that is finished")
    work = parser.parse_args(arguments).work
    progress = OnTerminal()
    first = write_digits(work / "first", classes=FIRST)
    second = write_digits(work / "second", classes=SECOND)
    validation = write_digits(work / "validation", split="validation", classes=SECOND)
    d3hr.fit_prior(first, work / "init", progress=progress)
    starts: dict[str, dict[str, Any]] = {
        "fine-tuned, all weights": {"init": work / "init"},
        "fine-tuned, LoRA": {"init": work / "init", "adapt": "lora"},
        "from scratch": {"autoencoder": work / "init"},
    }
    figures = []
    for steps in STEPS:
        for name, start in starts.items():
            best: dict[str, Any] = {}
            for rate in RATES:
                out = work / f"{name}, {steps} steps, {rate:g}"
                prior = d3hr.fit_prior(second, out, steps=steps, batch_size=BATCH, learning_rate=rate, **start)
                loss = held_out_loss(prior, validation)
                if not best or loss < best["held_out_loss"]:
                    best = {"start": name, "steps": steps, "learning_rate": rate, "held_out_loss": loss, "training_loss": curve(out)}
            figures.append(best)
            print(
                f"{steps:4d} steps  {name:25s} held-out loss {best['held_out_loss']:.4f}, learning rate {best['learning_rate']:g}",
                flush=True,
            )
        whole, lora, scratch = (row["held_out_loss"] for row in figures[-3:])
        print(f"            ratio to scratch: {whole / scratch:.3f} all weights, {lora / scratch:.3f} LoRA", flush=True)
    settings = {"steps": STEPS, "learning_rates": RATES, "batch_size": BATCH, "first_classes": FIRST, "classes": SECOND}
    record("finetuning", settings, figures)


if __name__ == "__main__":
    main()
