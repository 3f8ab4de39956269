"""Sections of docs/results.md on comparisons: a table for each matrix, and differences of its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.harness import DOCS, RESULTS
from benchmarks.report.page import DATA, Line, Page, accuracy, measured, percent, rows_of
from d3hr.fileio.atomic import read_json

PAIRS = [
    ("inversion against forward noise (both `exact`)", "d3hr exact", "forward_noise"),
    ("inversion against the prior alone", "d3hr exact", "prior_only"),
    ("search against one draw", "d3hr search", "d3hr random"),
    ("exact against search", "d3hr exact", "d3hr search"),
    ("best of ours against published D3HR", "d3hr chosen", "d3hr published"),
    ("best of ours against one Gaussian (`exact`)", "d3hr chosen", "d3hr exact"),
    ("best of ours against the prior alone", "d3hr chosen", "prior_only"),
    ("best of ours against forward noise", "d3hr chosen", "forward_noise"),
    ("best of ours against k-means medoids", "d3hr chosen", "k_means"),
    ("best of ours against random real images", "d3hr chosen", "random_real"),
    ("published D3HR against random real images", "d3hr published", "random_real"),
]
"""The questions of the main matrix: question, row, row that it is compared with."""

Study = tuple[str, str, str]
CHOSEN: list[Study] = [
    ("without any teacher or prior", "choices", "test"),
    ("by a teacher of all the training images", "choices-teacher", "test"),
    ("for soft labels, by the teacher that answers", "choices-teacher", "test-soft"),
    ("next to a prior", "starts", "test"),
]
"""How real images are chosen: heading, matrix, images it was tested on."""


def studies(chosen: list[Study]) -> Callable[[Page], None]:
    """Return a function that appends a table for each of these matrices and each data set."""

    def write(page: Page) -> None:
        for heading, matrix, on in chosen:
            for _, title, files in measured(matrix, on):
                page.add(f"### {title}: {heading[0].lower()}{heading[1:]}")
                page.accuracies(rows_of(files))
                page.sources(files)

    return write


def main_matrices(page: Page) -> None:
    """Append the matrices on the test images, and the paired differences."""
    for data, title, files in measured("main", "test"):
        rows = rows_of(files)
        page.add(f"## {title}")
        page.accuracies(rows)
        page.differences(rows, PAIRS)
        _classes(page, rows)
        _diagnosis(page, data)
        if (DOCS / "images" / f"{data}-sets.png").is_file():
            page.add(f"![The first sets, ten images per class](images/{data}-sets.png)")
        page.sources(files)


def _classes(page: Page, rows: list[dict[str, Any]]) -> None:
    named = {row["name"]: row["per_class"] for row in rows if row["ipc"] == 10}
    shown = [name for name in ("random_real", "d3hr published", "d3hr exact", "d3hr chosen") if name in named]
    if not shown:
        return
    page.prose("Which classes, at 10 images per class:")
    page.table(
        ["class", *(f"`{name}`" for name in shown)],
        ([each, *(f"{100 * named[name][each]:.1f}" for name in shown)] for each in named[shown[0]]),
    )


def _diagnosis(page: Page, data: str) -> None:
    if not (file := RESULTS / f"{data}-diagnosis.json").is_file():
        return
    page.prose("What `d3hr diagnose` finds in the first sets of 10 images per class, as shares of what random real images have:")
    page.table(
        ["set", "mean distance within a class", "coverage", "sliced Wasserstein", "Frechet", "copies"],
        (
            [
                f"`{name}`",
                f"{diagnosis['diversity']['distilled'] / diagnosis['diversity']['real']:.2f}",
                f"{diagnosis['coverage']['coverage'] / diagnosis['coverage']['reference']['coverage']:.2f}",
                *(
                    f"{diagnosis['distances'][measure]['distilled'] / diagnosis['distances'][measure]['reference_mean']:.2f}"
                    for measure in ("sliced_wasserstein", "frechet")
                ),
                percent(diagnosis["copying"]["share_copied"]),
            ]
            for name, diagnosis in read_json(file)["figures"].items()
        ),
    )
    page.sources([file])


def chosen(page: Page) -> None:
    """Append the tables of chosen real images, each with its differences to random real images; packed sets have tables of their own."""
    for heading, matrix, on in CHOSEN:
        for _, title, files in measured(matrix, on):
            page.add(f"### {title}: {heading}")
            rows = rows_of(files)
            for packed in (False, True):
                part = [row for row in rows if (row["pack"] > 1) == packed]
                real = [row["name"] for row in part if row["method"] == "random_real"]
                if part:
                    page.accuracies(part)
                    names = [name for name in dict.fromkeys(row["name"] for row in part) if name not in real]
                    page.differences(part, [(f"`{name}` against `{real[0]}`", name, real[0]) for name in names if real])
            page.sources(files)


def protocols(page: Page) -> None:
    """Append how the protocol was chosen."""
    for _, title, files in measured("protocol", "validation"):
        page.add(f"### {title}: the protocol, on random real images alone")
        page.accuracies([{**row, "name": row["protocol"]} for row in rows_of(files)])
        page.sources(files)


def levels(page: Page) -> None:
    """Append accuracy by level, for one mode and several."""
    for data, title, files in measured("level", "validation"):
        rows = rows_of(files)
        page.add(f"### {title}: the level")
        if read_json(files[0])["date"] < read_json(RESULTS / f"real_priors_{data}.json")["date"]:
            page.prose("With an earlier fit of the same prior, and students trained in float32.")
        lines: dict[str, Line] = {}
        for row in rows:
            if match := re.fullmatch(r"(.+), level (\d+)", row["name"]):
                lines.setdefault(match[1], []).append((int(match[2]), row))
        page.plot(f"results-level-{data}", f"{title}, 10 images per class", "level of statistics and denoising", lines)
        page.accuracies(rows)
        page.sources(files)


def robustness(page: Page) -> None:
    """Append how far accuracies of many sets scatter."""
    for _, title, files in measured("robustness", "test"):
        rows = rows_of(files)
        real = next(row for row in rows if row["name"] == "random_real")["accuracy_std"]
        page.add(f"### {title}: {rows[0]['seeds']} sets")
        page.table(
            ["method", "accuracy %", "spread, of random real images'"],
            ([f"`{row['name']}`", accuracy(row), f"{row['accuracy_std'] / real:.2f}"] for row in rows),
        )
        page.differences(rows, PAIRS)
        page.sources(files)


def with_teacher(heading: str, matrix: str) -> Callable[[Page], None]:
    """Return a function that appends the tables of a matrix whose students have a teacher."""

    def write(page: Page) -> None:
        for data, title, files in measured(matrix, "test"):
            teacher = RESULTS / f"real_teachers_{data}.json"
            rows, accuracy_of_teacher = rows_of(files), read_json(teacher)["figures"]["test_accuracy"]
            page.add(f"### {title}: {heading}")
            page.prose(f"The teacher is a ConvNet-3 with {100 * accuracy_of_teacher:.1f} % on the test images.")
            page.accuracies(rows)
            page.differences(rows, PAIRS)
            page.sources([teacher, *files])

    return write


def students(page: Page) -> None:
    """Append the accuracy of other networks on the same sets."""
    for _, title, files in measured("students", "test"):
        page.add(f"### {title}: one set, five networks")
        page.accuracies(rows_of(files), by="student")
        page.sources(files)


def spoiled(page: Page) -> None:
    """Append the accuracy on spoiled images, and their diagnosis."""
    for _, title, (file,) in measured("spoiled", "validation"):
        figures: dict[str, Any] = read_json(file)["figures"]
        page.add(f"### {title}: spoiled training images")
        page.accuracies([{**row, "how": how} for how, each in figures.items() for row in each["rows"]], by="how")
        signatures = list(next(iter(next(iter(figures.values()))["diagnoses"].values()))["verdicts"])
        page.prose("What the diagnosis of the first set of `d3hr chosen` says before anything is trained:")
        page.table(
            ["training images", *signatures, "in clear neighbourhoods, other labels", "diversity, of real"],
            (
                [
                    how,
                    *(diagnosis["verdicts"][signature]["status"] for signature in signatures),
                    percent(diagnosis["labels"]["contradicted"]),
                    f"{diagnosis['diversity']['distilled'] / diagnosis['diversity']['real']:.2f}",
                ]
                for how, each in figures.items()
                for diagnosis in [each["diagnoses"]["d3hr chosen"]]
            ),
        )
        page.sources([file])


def predictors(page: Page) -> None:
    """Append which properties of sets go with what students learn from them."""
    for data, title in DATA.items():
        if not (file := RESULTS / f"{data}-predictors.json").is_file():
            continue
        groups: dict[str, Any] = read_json(file)["figures"]["groups"]
        names = list(dict.fromkeys(name for group in groups.values() for name in group["correlations"]))
        page.add(f"### {title}")
        page.table(
            ["sets", *names],
            (
                [
                    f"{heading} ({group['rows']} rows, {group['sets']} sets)",
                    *(_correlation(group["correlations"].get(name)) for name in names),
                ]
                for heading, group in groups.items()
            ),
        )
        page.sources([file])


def _correlation(found: Mapping[str, float] | None) -> str:
    """Return a rank correlation with its interval; bold where the interval leaves out zero."""
    if found is None:
        return ""
    text = f"{found['rank_correlation']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"
    return f"**{text}**" if found["low"] * found["high"] > 0 else text
