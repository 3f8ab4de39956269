"""Sections of docs/results.md on priors and autoencoders: how long they were fitted, and what sets from each are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.harness import RESULTS
from benchmarks.report.page import DATA, Line, Page, accuracy, measured
from d3hr.fileio.atomic import read_json

BY_SIDE = [("as they are", "pretrained_by_side"), ("enlarged", "pretrained_by_side_enlarged")]
"""Rows on a pretrained autoencoder, and their names in its result."""
OVERLAP = ("precision", "recall", "coverage")
"""Figures of how drawn images overlap with real ones."""
BY_EYE = (
    "In the picture the fitted one blurs every photo: fur, feathers, the cat's face and the lettering of the bus are gone, and shapes "
    "and colours stay. What the pretrained one gives back is nearly as sharp as the photo, with fine detail that is plausible and not "
    "quite the same. Their PSNR differs little, as PSNR prefers a blur to detail in the wrong place: it understates the pretrained one."
)
STUDENTS = (
    "Ten images per class, students of 32 px, tested on held-out photos. `photos through` an autoencoder are encoded and decoded, and "
    "nothing else. The other sets have behind them a transformer of 400 steps, some two quiet minutes."
)


def priors(page: Page) -> None:
    """Append the fitted priors."""
    files = [file for data in DATA if (file := RESULTS / f"real_priors_{data}.json").is_file()]
    table = []
    for file in files:
        figures = read_json(file)["figures"]
        behind = f"{figures['autoencoder']['minutes']} min, {figures['autoencoder']['psnr_db']} dB"
        name = DATA[file.stem.removeprefix("real_priors_")]
        table += [
            [name, behind, f"{int(steps):,}", str(each["minutes"]), str(each["loss"])] for steps, each in figures["transformers"].items()
        ]
    page.table(["data", "autoencoder", "transformer steps", "minutes (one thread)", "noise loss at the end"], table)
    page.sources(files)
    for data, title, (file,) in measured("fitting", "validation"):
        _fitting(page, data, title, file)


def _fitting(page: Page, data: str, title: str, file: Path) -> None:
    lines: dict[str, Line] = {}
    for fit in read_json(file)["figures"].values():
        for row in fit["rows"]:
            lines.setdefault(row["name"], []).append((fit["minutes"], row))
    page.prose("How long fitting pays, on held-out images:")
    page.plot(f"results-fitting-{data}", f"{title}, 10 images per class", "minutes that the transformer was fitted", lines)
    page.sources([file])


def autoencoders(page: Page) -> None:
    """Append what a pretrained autoencoder brings."""
    for _, title, (file,) in measured("autoencoders", "validation"):
        figures = read_json(file)["figures"]
        found = figures["reconstruction_psnr_db"]
        page.add(f"### {title}, {read_json(file)['settings']['image_size']} px")
        page.table(
            ["autoencoder", "photos", "the same, enlarged to 128 px"],
            ([name, f"{each} dB", f"{found['enlarged_to_128_px'][name]} dB"] for name, each in found["at_64_px"].items()),
        )
        page.prose("The pretrained one on the same photos, read at other sides, and enlarged to twice that side before it sees them:")
        sides = found["pretrained_by_side"]
        page.table(
            ["pixels", *sides],
            [[label, *(f"{found[key][side]} dB" for side in sides)] for label, key in BY_SIDE],
        )
        page.add("![Photos, and what either autoencoder makes of them](images/autoencoders.png)")
        page.prose(BY_EYE)
        if "rows" in figures:
            page.prose(STUDENTS)
            page.accuracies(figures["rows"])
        page.sources([file])


def families(page: Page) -> None:
    """Append what sets from priors of other families are worth."""
    if not (file := RESULTS / "families.json").is_file():
        return
    rows = [{**row, "name": row["family"]} for row in read_json(file)["figures"]]
    page.accuracies(rows, by="sets")
    fitted = {row["name"]: row for row in rows if "steps" in row}
    page.table(
        ["prior", "parameters", "training steps in the same time", "loss at the end"],
        ([f"`{name}`", f"{row['parameters']:,}", f"{row['steps']:,}", f"{row['loss']:.3f}"] for name, row in fitted.items()),
    )
    page.sources([file])


def objectives(page: Page) -> None:
    """Append what new priors learn, by how long they are fitted."""
    for data, title, (file,) in measured("objectives", "validation"):
        result = read_json(file)
        figures = result["figures"]
        fits = groupby(sorted(figures["priors"], key=_budget), key=_budget)
        means = {budget: _mean_of_fits(list(same)) for budget, same in fits}
        page.add(f"### {title}: what a new prior learns")
        lines: dict[str, Line] = {}
        for (steps, objective), fit in means.items():
            for row in fit["rows"]:
                lines.setdefault(f"{objective}, {row['name']}", []).append((steps, row))
        if len({steps for steps, _ in means}) > 1:
            page.plot(f"results-objectives-{data}", f"{title}, 10 images per class", "optimiser steps of the transformer", lines)
        first = figures["priors"][0]
        real = {"rows": [], "round_trip_db": first["autoencoder_db"], "drawn": figures["real"]}
        page.table(
            ["objective", "steps", *(f"`{row['name']}`, accuracy %" for row in first["rows"]), "round trip, dB", *OVERLAP, "Frechet"],
            [
                *(
                    [f"`{objective}`", f"{steps:,}", *(accuracy(row) for row in fit["rows"]), *_without_training(fit)]
                    for (steps, objective), fit in means.items()
                ),
                ["other real images", *("" for _ in ("steps", *first["rows"])), *_without_training(real)],
            ],
        )
        about = result["settings"]["teacher"]
        page.prose(f"The teacher has {100 * about:.1f} % on the held-out images; the last round trip is that of the autoencoder alone.")
        page.sources([file])


def _budget(fit: Mapping[str, Any]) -> tuple[int, str]:
    return fit["steps"], fit["objective"]


def _mean_of_fits(fits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean figures of fits that differ in their seeds alone, with the deviation of accuracies over fits."""
    accuracies = [[row["accuracy_mean"] for row in same] for same in zip(*(fit["rows"] for fit in fits), strict=True)]
    return {
        "rows": [
            {**row, "accuracy_mean": mean(values), "accuracy_std": stdev(values) if len(fits) > 1 else 0.0, "seeds": len(fits)}
            for row, values in zip(fits[0]["rows"], accuracies, strict=True)
        ],
        "round_trip_db": mean(fit["round_trip_db"] for fit in fits),
        "drawn": {name: mean(fit["drawn"][name] for fit in fits) for name in (*OVERLAP, "frechet")},
    }


def _without_training(fit: Mapping[str, Any]) -> list[str]:
    """Return the cells of the figures that no student is trained for."""
    return [f"{fit['round_trip_db']:.1f}", *(f"{fit['drawn'][name]:.2f}" for name in OVERLAP), f"{fit['drawn']['frechet']:.2f}"]
