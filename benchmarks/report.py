"""Writes docs/results.md and its plots from the files in benchmarks/results; no number in them is typed.

Run:   make benchmarks-report
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from d3hr.comparison.differences import Difference, paired_difference
from d3hr.evaluation.training import Run
from d3hr.files import read_json, write_bytes

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
DATA = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
Row = dict[str, Any]

PAIRS = [
    ("inversion against forward noise (both `exact`)", "d3hr exact", "forward_noise"),
    ("inversion against the prior alone", "d3hr exact", "prior_only"),
    ("search against one draw", "d3hr search", "d3hr random"),
    ("exact against search", "d3hr exact", "d3hr search"),
    ("several modes against published D3HR", "d3hr modes", "d3hr published"),
    ("several modes against one", "d3hr modes", "d3hr exact"),
    ("several modes against random real images", "d3hr modes", "random_real"),
    ("several modes against k-means medoids", "d3hr modes", "k_means"),
]
"""What the main matrix is to answer: question, row, row that it is compared with."""


class Page:
    """A Markdown page under way, and the files its numbers come from."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Append lines, and an empty one."""
        self.lines += [*lines, ""]

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Append a table."""
        self.add("| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *("| " + " | ".join(row) + " |" for row in rows))

    def sources(self, files: Iterable[Path]) -> None:
        """Append where the numbers above come from: files, with the command, commit and date of each."""
        kept = [(file, read_json(file)) for file in files]
        self.add(
            *(
                f"[{file.stem}](../benchmarks/results/{file.name}): `{found['command']}`, {found['commit']}, {found['date']}.  "
                for file, found in kept
            )
        )


def files_of(data: str, matrix: str, on: str) -> list[Path]:
    """Return the result files of one matrix of one data set, whole or of some numbers of images per class."""
    pattern = re.compile(rf"{data}-{matrix}-{on}(-ipc[\d-]+)?\.json")
    return sorted(file for file in RESULTS.iterdir() if pattern.fullmatch(file.name))


def rows_of(files: Iterable[Path]) -> list[Row]:
    """Return the rows of result files in their order, each row of equal name, size, student and protocol once."""
    found: dict[tuple[Any, ...], Row] = {}
    for file in files:
        for row in read_json(file)["figures"]:
            found[row["name"], row["ipc"], row["student"], row["protocol"]] = row
    return list(found.values())


def accuracy(row: Row | None) -> str:
    """Return mean and, of several runs, standard deviation in percent."""
    if row is None:
        return ""
    return f"{100 * row['accuracy_mean']:.1f}" + (f" ± {100 * row['accuracy_std']:.1f}" if row["seeds"] > 1 else "")


def runs_of(row: Row) -> list[Run]:
    """Return the runs of a row, for paired differences."""
    return [Run(value, value, training_seed=trained, distillation_seed=made) for made, trained, value in row["runs"]]


def points(difference: Difference | None) -> str:
    """Return a difference with its interval, in percentage points; bold where the interval leaves out zero."""
    if difference is None:
        return ""
    text = f"{100 * difference.mean:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    return f"**{text}**" if difference.certain else text


def matrix_table(page: Page, rows: list[Row]) -> None:
    """Append accuracies by method and images per class; the best of a column is bold."""
    sizes = sorted({row["ipc"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))
    best = {size: max(row["accuracy_mean"] for row in rows if row["ipc"] == size) for size in sizes}
    cells = {(row["name"], row["ipc"]): row for row in rows}

    def cell(name: str, size: int) -> str:
        row = cells.get((name, size))
        return f"**{accuracy(row)}**" if row and row["accuracy_mean"] == best[size] else accuracy(row)

    runs = {size: max(row["seeds"] for row in rows if row["ipc"] == size) for size in sizes}
    page.table(
        ["accuracy %", *(f"IPC {size} ({runs[size]} run{'s' * (runs[size] > 1)})" for size in sizes)],
        ([f"`{name}`", *(cell(name, size) for size in sizes)] for name in names),
    )


def differences_table(page: Page, rows: list[Row]) -> None:
    """Append the paired differences that :data:`PAIRS` asks for, as far as their rows are there."""
    sizes = sorted({row["ipc"] for row in rows})
    cells = {(row["name"], row["ipc"]): row for row in rows}

    def cell(ours: str, other: str, size: int) -> str:
        pair = cells.get((ours, size)), cells.get((other, size))
        return points(paired_difference(runs_of(pair[0]), runs_of(pair[1]))) if pair[0] and pair[1] else ""

    table = [[question, *(cell(ours, other, size) for size in sizes)] for question, ours, other in PAIRS]
    page.table(["difference in points (95 % interval)", *(f"IPC {size}" for size in sizes)], (line for line in table if any(line[1:])))


def curve(page: Page, name: str, title: str, axis: str, lines: dict[str, list[tuple[float, Row]]]) -> None:
    """Write a plot of accuracies along a setting, with error bars, and append it."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for label, values in lines.items():
        heights = [100 * row["accuracy_mean"] for _, row in values]
        bars = [100 * row["accuracy_std"] for _, row in values]
        axes.errorbar([place for place, _ in values], heights, yerr=bars, label=label, marker="o", capsize=3)
    axes.set(xlabel=axis, ylabel="accuracy % (held-out images)", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    path = DOCS / "images" / f"{name}.png"
    figure.savefig(path, dpi=120, metadata={"Software": None})
    page.add(f"![{title}](images/{path.name})")


def priors(page: Page) -> None:
    """Append what was fitted."""
    files = [RESULTS / f"real_priors_{data}.json" for data in DATA]
    known = [file for file in files if file.is_file()]
    table = []
    for file in known:
        found = read_json(file)
        figures = found["figures"]
        behind = f"{figures['autoencoder']['minutes']} min, {figures['autoencoder']['psnr_db']} dB"
        name = DATA[file.stem.removeprefix("real_priors_")]
        table += [
            [name, behind, f"{int(steps):,}", str(each["minutes"]), str(each["loss"])] for steps, each in figures["transformers"].items()
        ]
    page.table(["data", "autoencoder", "transformer steps", "minutes (one thread)", "noise loss at the end"], table)
    page.sources(known)


def protocols(page: Page) -> None:
    """Append how the protocol was chosen."""
    for data, title in DATA.items():
        file = RESULTS / f"{data}-protocol-validation.json"
        if file.is_file():
            rows = read_json(file)["figures"]
            page.add(f"### {title}: the protocol, on random real images alone")
            matrix_table(page, [{**row, "name": row["protocol"]} for row in rows])
            page.sources([file])


def main_matrices(page: Page) -> None:
    """Append the matrices on the test images, and the paired differences."""
    for data, title in DATA.items():
        files = files_of(data, "main", "test")
        if files:
            rows = rows_of(files)
            page.add(f"## {title}")
            matrix_table(page, rows)
            differences_table(page, rows)
            if (DOCS / "images" / f"{data}-modes.png").is_file():
                page.add(f"![The first set of `d3hr modes`, ten images per class](images/{data}-modes.png)")
            page.sources(files)


def levels(page: Page) -> None:
    """Append accuracy by level, for one mode and several."""
    for data, title in DATA.items():
        files = [file for matrix in ("level", "temperature") for file in files_of(data, matrix, "validation")]
        if not files:
            continue
        rows = rows_of(files)
        page.add(f"### {title}: level, modes and temperature")
        lines: dict[str, list[tuple[float, Row]]] = {}
        for row in rows:
            if match := re.fullmatch(r"(.+), level (\d+)", row["name"]):
                lines.setdefault(match[1], []).append((int(match[2]), row))
        curve(page, f"results-level-{data}", f"{title}, 10 images per class", "level of statistics and denoising", lines)
        matrix_table(page, rows)
        page.sources(files)


SECTIONS: list[tuple[str, str, Callable[[Page], None]]] = [
    (
        "## The priors",
        "Every number below rests on these. The autoencoder's error is that of encoding and decoding training images.",
        priors,
    ),
    ("", "", main_matrices),
    ("## What was chosen, on held-out training images", "No test image was looked at for these.", protocols),
    ("", "", levels),
]


def main() -> None:
    page = Page()
    page.add(
        "# Results on real data",
        "",
        "Written by `make benchmarks-report` from [benchmarks/results](../benchmarks/results); every number traces to a file there, which",
        "holds command, commit, settings, machine and date.",
        "Mean ± standard deviation over runs (sets x trainings), last training step, ConvNet-3, hard labels, protocol",
        "[short](../benchmarks/protocols/short.yaml), 10,000 test images looked at once.",
        "The statistics of `d3hr` rows come from 1,000 images a class. Intervals treat sets, not trainings, as independent: of two or",
        "three sets they are wide, and one that is narrow may be so by chance.",
        "Everything was chosen on 2,000 images of the training set that nothing else saw.",
        "Two CPU cores; no GPU was to be had.",
    )
    for heading, intro, write in SECTIONS:
        if heading:
            page.add(heading, "", intro)
        write(page)
    write_bytes(DOCS / "results.md", ("\n".join(page.lines).rstrip() + "\n").encode())


if __name__ == "__main__":
    main()
