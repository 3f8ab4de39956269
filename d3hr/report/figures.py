"""Plots as SVG text that takes its ink from the page, so that it reads in light and dark."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from d3hr.data.codec import png_of
from d3hr.diagnostics.normality import Normality
from d3hr.diagnostics.sampling import Embedding
from d3hr.report.pictures import data_uri

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


WIDTH, HEIGHT, MARGIN = 720.0, 480.0, 16.0
MAX_POINTS = {"real": 3000, "distilled": 2000}
_COLOURS = ("#2e86ab", "#e4572e", "#5b9a6f", "#8f6bb8", "#c99a2e", "#c2588b", "#3aa6a0", "#8a6d5a", "#7d8a99", "#98a03c")


@dataclass(frozen=True)
class Dot:
    """One point of the drawing."""

    x: float
    y: float
    class_name: str
    number: int
    """Position of the class among those of the drawing."""
    index: int


@dataclass(frozen=True)
class Drawing:
    """Points by kind, the real ones first, and a colour for each class."""

    method: str
    real: list[Dot]
    distilled: list[Dot]
    colours: dict[str, str]
    rule: str
    """What was left out, in words; empty if nothing was."""


def drawing_of(embedding: Embedding, class_names: Sequence[str]) -> Drawing | None:
    """Return the points scaled to the drawing; None where there is nothing to draw.

    Args:
        embedding: points in coordinates of their own; points without coordinates are left out.
        class_names: the set's classes, which decide the order of colours.
    """
    placed = [(point, point.x, point.y) for point in embedding.points if point.x is not None and point.y is not None]
    if not placed:
        return None
    names = list(dict.fromkeys([*class_names, *(point.class_name for point, _, _ in placed)]))
    numbers = {name: number for number, name in enumerate(names)}
    across, up = _scaled([x for _, x, _ in placed], WIDTH), _scaled([y for _, _, y in placed], HEIGHT)
    dots: dict[str, list[Dot]] = {kind: [] for kind in MAX_POINTS}
    for (point, _, _), x, y in zip(placed, across, up, strict=True):
        dots[point.kind].append(Dot(MARGIN + x, HEIGHT - MARGIN - y, point.class_name, numbers[point.class_name], point.index))
    thinned = [f"{MAX_POINTS[kind]:,} of {len(all_of):,} {kind} images" for kind, all_of in dots.items() if len(all_of) > MAX_POINTS[kind]]
    return Drawing(
        method=embedding.method,
        real=_thinned(dots["real"], MAX_POINTS["real"]),
        distilled=_thinned(dots["distilled"], MAX_POINTS["distilled"]),
        colours={name: _colour(number, len(names)) for number, name in enumerate(names)},
        rule=f"Drawn: {', '.join(thinned)}, evenly taken." if thinned else "",
    )


def _scaled(values: Sequence[float], extent: float) -> list[float]:
    """Return values mapped onto 0 .. ``extent``, less the margins."""
    low = min(values)
    span = (max(values) - low) or 1.0
    return [(extent - 2 * MARGIN) * (value - low) / span for value in values]


def _thinned(dots: list[Dot], most: int) -> list[Dot]:
    return [dots[place * len(dots) // most] for place in range(most)] if len(dots) > most else dots


def _colour(number: int, count: int) -> str:
    return _COLOURS[number] if count <= len(_COLOURS) else f"hsl({round(360 * number / count)} 55% 52%)"


MAX_TABLE = 25
"""Most classes whose matrix is a table with numbers."""
_CONFUSED_INK = (46, 134, 171)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix; rows are true classes, columns predictions.

    Attributes:
        names: the classes.
        counts: test images, [C, C].
        shares: counts over the images of the true class, [C, C]; 0 for a class without images.
        picture: the shares as a data URI, one pixel a cell, where there are too many classes for a table.
        common: the commonest confusions: true class, predicted class, images, share.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    picture: str | None
    common: tuple[tuple[str, str, int, float], ...]


def confusion_of(names: Sequence[str], counts: Sequence[Sequence[int]], *, listed: int = 10) -> Confusion:
    """Return the matrix ready for the page.

    Args:
        names: the classes, in the matrix's order.
        counts: test images [C, C]; rows are true classes.
        listed: how many confusions to name.
    """
    matrix = np.array(counts, dtype=np.int64).reshape(len(names), len(names))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:listed]
    places = [divmod(int(place), len(names)) for place in order]
    return Confusion(
        names=tuple(names),
        counts=tuple(tuple(int(count) for count in row) for row in matrix),
        shares=tuple(tuple(float(share) for share in row) for row in shares),
        picture=_picture(shares) if len(names) > MAX_TABLE else None,
        common=tuple(
            (names[true], names[guess], int(matrix[true, guess]), float(shares[true, guess]))
            for true, guess in places
            if wrong[true, guess]
        ),
    )


def _picture(shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    """Draw shares as opacity, so that the page's paper shows through."""
    pixels = np.empty((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _CONFUSED_INK
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    return data_uri(png_of(Image.fromarray(pixels)))
