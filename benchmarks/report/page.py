"""A Markdown page whose numbers come from the files in benchmarks/results: tables, plots, and the source of each number."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.harness import DOCS, RESULTS
from d3hr.comparison.statistics import Difference, paired_difference
from d3hr.evaluation.results import TrainingResult
from d3hr.fileio.atomic import read_json

Row = dict[str, Any]
Line = list[tuple[float, Row]]
COLUMNS = 100
DATA = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "tiny_imagenet10": "Tiny ImageNet"}


class Page:
    """A Markdown page under way."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        """The page."""
        return "\n".join(self.lines).rstrip() + "\n"

    def add(self, *lines: str) -> None:
        """Append lines, and an empty one."""
        self.lines += [*lines, ""]

    def prose(self, text: str) -> None:
        """Append a paragraph in columns of 100, and an empty line."""
        self.add(*textwrap.wrap(text, COLUMNS, break_long_words=False, break_on_hyphens=False))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Append a table."""
        self.add("| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *("| " + " | ".join(row) + " |" for row in rows))

    def sources(self, files: Iterable[Path]) -> None:
        """Append where the numbers above come from: files, with the command, commit and date of each."""
        results = [(file, read_json(file)) for file in files]
        self.add(
            *(
                f"[{file.stem}](../benchmarks/results/{file.name}): `{result['command']}`, {result['commit']}, {result['date']}.  "
                for file, result in results
            )
        )

    def plot(self, name: str, title: str, axis: str, lines: dict[str, Line]) -> None:
        """Write a plot of accuracies along a setting, with error bars, and append it."""
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.subplots()
        for label, values in lines.items():
            heights = [100 * row["accuracy_mean"] for _, row in values]
            bars = [100 * row["accuracy_std"] for _, row in values]
            axes.errorbar([place for place, _ in values], heights, yerr=bars, label=label, marker="o", capsize=3)
        axes.set(xlabel=axis, ylabel="accuracy % (held-out images)", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        path = DOCS / "images" / f"{name}.png"
        figure.savefig(path, dpi=120, metadata={"Software": None})
        self.add(f"![{title}](images/{path.name})")

    def accuracies(self, rows: list[Row], by: str = "ipc") -> None:
        """Append accuracies by method and images per class (or another column of the rows); the best of a column is bold."""
        columns = list(dict.fromkeys(row[by] for row in rows))
        runs = {column: max(row["seeds"] for row in rows if row[by] == column) for column in columns}
        cells = marked(rows, by)
        self.table(
            ["accuracy %", *(f"{f'IPC {each}' if by == 'ipc' else each} ({runs[each]} run{'s' * (runs[each] > 1)})" for each in columns)],
            ([f"`{name}`", *(cells.get((name, column), "") for column in columns)] for name in dict.fromkeys(row["name"] for row in rows)),
        )

    def differences(self, rows: list[Row], pairs: Iterable[tuple[str, str, str]]) -> None:
        """Append paired differences by images per class: of each question, the row and the row it is compared with."""
        sizes = sorted({row["ipc"] for row in rows})
        cells = {(row["name"], row["ipc"]): row for row in rows}

        def cell(ours: str, other: str, size: int) -> str:
            first, second = cells.get((ours, size)), cells.get((other, size))
            return points(paired_difference(runs_of(first), runs_of(second))) if first and second else ""

        table = [[question, *(cell(ours, other, size) for size in sizes)] for question, ours, other in pairs]
        self.table(["difference in points (95 % interval)", *(f"IPC {size}" for size in sizes)], (line for line in table if any(line[1:])))


def files_of(data: str, matrix: str, on: str) -> list[Path]:
    """Return the result files of one matrix of one data set, whole or of some numbers of images per class."""
    pattern = re.compile(rf"{data}-{matrix}-{on}(-ipc[\d-]+)?\.json")
    return sorted(file for file in RESULTS.iterdir() if pattern.fullmatch(file.name))


def rows_of(files: Iterable[Path]) -> list[Row]:
    """Return the rows of result files by images per class, each row of equal name, size, student and protocol once."""
    rows: dict[tuple[Any, ...], Row] = {}
    for file in files:
        for row in read_json(file)["figures"]:
            rows[row["name"], row["ipc"], row["student"], row["protocol"]] = row
    return sorted(rows.values(), key=lambda row: int(row["ipc"]))


def accuracy(row: Row) -> str:
    """Return mean and, of several runs, standard deviation in percent."""
    return f"{100 * row['accuracy_mean']:.1f}" + (f" ± {100 * row['accuracy_std']:.1f}" if row["seeds"] > 1 else "")


def marked(rows: Iterable[Row], by: str) -> dict[tuple[str, Any], str]:
    """Return the accuracy of each method in each column, of which the rows have one in ``by``; the best of a column is bold."""
    best: dict[Any, float] = {}
    cells = {(row["name"], row[by]): row for row in rows}
    for (_, column), row in cells.items():
        best[column] = max(row["accuracy_mean"], best.get(column, 0.0))
    return {
        (name, column): f"**{accuracy(row)}**" if row["accuracy_mean"] == best[column] else accuracy(row)
        for (name, column), row in cells.items()
    }


def runs_of(row: Row) -> list[TrainingResult]:
    """Return the runs of a row, for paired differences."""
    return [TrainingResult(value, value, training_seed=trained, distillation_seed=drawn) for drawn, trained, value in row["runs"]]


def points(difference: Difference | None) -> str:
    """Return a difference with its interval, in percentage points; bold where the interval leaves out zero."""
    if difference is None:
        return ""
    if difference.pairs == 1:
        return f"{100 * difference.mean:+.1f} (one pair)"
    text = f"{100 * difference.mean:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    return f"**{text}**" if difference.certain else text


def measured(matrix: str, on: str) -> Iterator[tuple[str, str, list[Path]]]:
    """Yield name, title and result files of each data set for which there are files of a matrix."""
    for data, title in DATA.items():
        if files := files_of(data, matrix, on):
            yield data, title, files


def percent(share: float | None) -> str:
    """Return a share as a percentage; nothing where it is not known."""
    return "" if share is None else f"{100 * share:.0f} %"
