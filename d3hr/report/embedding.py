"""Images as points in the plane, placed and coloured for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from d3hr.report.diagnosis import Embedding

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
