"""Plots as SVG text that takes its ink from the page, so that it reads in light and dark."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3hr.evaluation.results import Evaluation

_INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
COLOURS = {"d3hr": "#e4572e", "random_real": "#2e86ab", "prior_only": "#8d99ae"}
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


def accuracy_chart(rows: Sequence[Evaluation], names: Mapping[str, str]) -> str:
    """Return bars of mean last-epoch accuracy with one standard deviation, grouped by IPC; ``names`` says how to call each method."""
    methods = list(dict.fromkeys(row.method for row in rows))
    ipcs = sorted({row.ipc for row in rows})
    with rc_context(_STYLE):
        figure, axes = _new(6.4, 3.2)
        for index, method in enumerate(methods):
            mine = {row.ipc: row for row in rows if row.method == method}
            places = [ipcs.index(ipc) + (index - (len(methods) - 1) / 2) * 0.27 for ipc in mine]
            means = [100 * row.accuracy_mean for row in mine.values()]
            errors = [100 * row.accuracy_std for row in mine.values()]
            axes.bar(places, means, 0.25, yerr=errors, label=names[method], color=COLOURS.get(method, "#999999"), ecolor=_INK, capsize=3)
            for place, mean, error in zip(places, means, errors, strict=True):
                axes.text(place, mean + error + 1, f"{mean:.1f}", ha="center", va="bottom", fontsize=10)
        axes.set_xticks(range(len(ipcs)), [f"IPC {ipc}" for ipc in ipcs])
        axes.set_ylabel("test accuracy, %")
        axes.set_ylim(0, 108)
        axes.legend(frameon=False, ncols=len(methods), loc="upper center", bbox_to_anchor=(0.5, -0.1))
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


def _new(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    return figure, axes


def _svg(figure: Figure) -> str:
    figure.set_facecolor("none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
