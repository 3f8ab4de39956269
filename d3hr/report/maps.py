"""The plane of real and distilled images, and the confusion matrix: figures that the page draws itself.

Legend: C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from d3hr.data.codec import png_of
from d3hr.diagnostics.sampling import Embedding
from d3hr.formatting import data_uri

WIDTH, HEIGHT, MARGIN = 720.0, 480.0, 16.0
MAX_POINTS = {"real": 3000, "distilled": 2000}
COLOURS = ("#2e86ab", "#e4572e", "#5b9a6f", "#8f6bb8", "#c99a2e", "#c2588b", "#3aa6a0", "#8a6d5a", "#7d8a99", "#98a03c")


@dataclass(frozen=True)
class Dot:
    """One image in the drawing.

    Attributes:
        x: distance from the left, in units of the drawing.
        y: distance from the top.
        class_name: its class.
        number: position of the class among those of the drawing.
        index: position of the image within its class.
    """

    x: float
    y: float
    class_name: str
    number: int
    index: int


@dataclass(frozen=True)
class Drawing:
    """Real and distilled images in the plane.

    Attributes:
        method: how they were projected, in words.
        real: real images.
        distilled: distilled images.
        colours: class -> its colour.
        rule: what was left out, in words; empty if nothing was.
    """

    method: str
    real: list[Dot]
    distilled: list[Dot]
    colours: dict[str, str]
    rule: str


def drawing_of(embedding: Embedding, class_names: Sequence[str]) -> Drawing | None:
    """Return the points scaled to the drawing; None if no point has coordinates.

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
    """Return values mapped onto 0 to ``extent`` minus both margins."""
    low = min(values)
    span = (max(values) - low) or 1.0
    return [(extent - 2 * MARGIN) * (value - low) / span for value in values]


def _thinned(dots: list[Dot], most: int) -> list[Dot]:
    return [dots[place * len(dots) // most] for place in range(most)] if len(dots) > most else dots


def _colour(number: int, count: int) -> str:
    return COLOURS[number] if count <= len(COLOURS) else f"hsl({round(360 * number / count)} 55% 52%)"


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
        picture: the shares as a data URI, one pixel per cell, if there are too many classes for a table.
        common: the most frequent confusions: true class, predicted class, images, share of the true class.
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
    """Return the shares drawn as opacity, so that the page's background shows through."""
    pixels = np.empty((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _CONFUSED_INK
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    return data_uri(png_of(Image.fromarray(pixels)))
