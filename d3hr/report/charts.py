"""Charts as SVG text whose ink is the page's text colour, so that they can be read on light and on dark pages."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from d3hr.diagnostics.normality import Normality
from d3hr.evaluation.results import Evaluation, ResultRow

_INK = "#010203"
"""Placeholder of the page's text colour, which takes its place in the SVG."""
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


def accuracy_chart(
    rows: Sequence[Evaluation | ResultRow],
    names: Sequence[str] | None = None,
    *,
    colours: Mapping[str, str] = COLOURS,
    legend: Mapping[str, str] | None = None,
) -> str:
    """Return a bar of mean last-epoch accuracy with one standard deviation for each row, grouped by IPC.

    Each row has the name of its series, by default its method. The legend maps series to titles; without, the page draws it.
    """
    bars = list(zip(names or [row.method for row in rows], rows, strict=True))
    series = list(dict.fromkeys(name for name, _ in bars))
    ipcs = sorted({row.ipc for row in rows})
    step = 0.81 / max(3, len(series))
    with rc_context(_STYLE):
        figure, axes = _new(max(6.4, 1 + 0.42 * len(series) * len(ipcs)), 3.2)
        for index, name in enumerate(series):
            mine = {row.ipc: row for other, row in bars if other == name}
            places = [ipcs.index(ipc) + (index - (len(series) - 1) / 2) * step for ipc in mine]
            means = [100 * row.accuracy_mean for row in mine.values()]
            errors = [100 * row.accuracy_std for row in mine.values()]
            axes.bar(places, means, 0.93 * step, yerr=errors, color=colours.get(name, OTHER_COLOUR), ecolor=_INK, capsize=3)
            for place, mean, error in zip(places, means, errors, strict=True):
                axes.text(place, mean + error + 1, f"{mean:.1f}", ha="center", va="bottom", fontsize=10)
        axes.set_xticks(range(len(ipcs)), [f"IPC {ipc}" for ipc in ipcs])
        axes.set_ylabel("test accuracy, %")
        axes.set_ylim(0, 108)
        if legend is not None:
            keys = [Rectangle((0, 0), 1, 1, color=colours.get(name, OTHER_COLOUR), label=legend[name]) for name in series]
            axes.legend(handles=keys, frameon=False, ncols=len(series), loc="upper center", bbox_to_anchor=(0.5, -0.1))
        return _svg(figure)


def loss_chart(table: Path) -> str:
    """Return the loss curves of a prior's ``loss.csv`` on a logarithmic scale, one panel per network."""
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
    """Return the figure as an element of the page, without metadata and without ids of groups, which would repeat in every chart."""
    figure.set_facecolor("none")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return re.sub(r'<g id="[^"]*">', "<g>", text[text.index("<svg") :]).replace(_INK, "currentColor")
