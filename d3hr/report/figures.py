"""Plots as SVG text that takes its ink from the page, so that it reads in light and dark."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from d3hr.report.diagnosis import Normality

_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
COLOURS = {"d3hr": "#e4572e", "random_real": "#2e86ab", "prior_only": "#8d99ae"}
OTHER_COLOUR = "#999999"
NORMALITY_COLOURS = {"shapiro": "#2e86ab", "dagostino": "#e4572e", "anderson": "#5b9a6f"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "d3hr",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class AccuracyRow(Protocol):
    """What a bar is drawn from; accuracies are shares from 0 to 1."""

    @property
    def method(self) -> str:
        """Which bars belong together."""

    @property
    def ipc(self) -> int:
        """Images per class."""

    @property
    def accuracy_mean(self) -> float:
        """Height of the bar."""

    @property
    def accuracy_std(self) -> float:
        """Length of the error bar to either side."""


def accuracy_chart(rows: Sequence[AccuracyRow], names: Mapping[str, str] | None = None, colours: Mapping[str, str] = COLOURS) -> str:
    """Return bars of mean last-epoch accuracy with one standard deviation, grouped by IPC.

    Args:
        rows: a bar each.
        names: how to call each method in the legend; without, the page draws the legend.
        colours: colour of each method.
    """
    methods = list(dict.fromkeys(row.method for row in rows))
    ipcs = sorted({row.ipc for row in rows})
    step = 0.81 / max(3, len(methods))
    with rc_context(_STYLE):
        figure, axes = _new(max(6.4, 1 + 0.42 * len(methods) * len(ipcs)), 3.2)
        for index, method in enumerate(methods):
            mine = {row.ipc: row for row in rows if row.method == method}
            places = [ipcs.index(ipc) + (index - (len(methods) - 1) / 2) * step for ipc in mine]
            means = [100 * row.accuracy_mean for row in mine.values()]
            errors = [100 * row.accuracy_std for row in mine.values()]
            colour = colours.get(method, OTHER_COLOUR)
            axes.bar(places, means, 0.93 * step, yerr=errors, color=colour, ecolor=_INK, capsize=3)
            for place, mean, error in zip(places, means, errors, strict=True):
                axes.text(place, mean + error + 1, f"{mean:.1f}", ha="center", va="bottom", fontsize=10)
        axes.set_xticks(range(len(ipcs)), [f"IPC {ipc}" for ipc in ipcs])
        axes.set_ylabel("test accuracy, %")
        axes.set_ylim(0, 108)
        if names is not None:
            keys = [Rectangle((0, 0), 1, 1, color=colours.get(method, OTHER_COLOUR)) for method in methods]
            labels = [names[method] for method in methods]
            axes.legend(keys, labels, frameon=False, ncols=len(methods), loc="upper center", bbox_to_anchor=(0.5, -0.1))
        return _svg(figure)


def loss_chart(table: Path) -> str:
    """Return the loss curves of a prior's ``loss.csv``, one panel a network, logarithmic."""
    curves: dict[str, list[tuple[int, float]]] = {}
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["network"], []).append((int(row["step"]), float(row["loss"])))
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.4), layout="constrained")
        for axes, (network, points) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            axes.semilogy(*zip(*points, strict=True), color=COLOURS["random_real"], linewidth=1.2)
            axes.set_title(network, fontsize=11)
            axes.set_xlabel("step")
            axes.set_facecolor("none")
        return _svg(figure)


def normality_chart(normality: Normality) -> str:
    """Return the share of dimensions that pass each test of normality, by level; thin lines are single classes under Shapiro-Wilk."""
    levels = [entry.level for entry in normality.levels]
    with rc_context(_STYLE):
        figure, axes = _new(6.4, 3.2)
        for shares in normality.classes.values():
            _line(axes, levels[: len(shares)], shares[: len(levels)], color=NORMALITY_COLOURS["shapiro"], linewidth=0.7, alpha=0.3)
        for test, colour in NORMALITY_COLOURS.items():
            _line(axes, levels, [getattr(entry, test) for entry in normality.levels], color=colour, linewidth=2, marker="o", markersize=4)
        axes.set_xlabel("level of the grid (0: clean latents)")
        axes.set_ylabel("dimensions that pass, %")
        axes.set_ylim(0, 104)
        return _svg(figure)


def _line(axes: Axes, places: Sequence[float], shares: Sequence[float | None], **style: Any) -> None:
    axes.plot(places, [float("nan") if share is None else 100 * share for share in shares], **style)


def _new(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    return figure, axes


def _svg(figure: Figure) -> str:
    """Return the figure as an element of the page: no metadata, and no names of groups, which would occur once a chart."""
    figure.set_facecolor("none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :]).replace(_INK, "currentColor")
