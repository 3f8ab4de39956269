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
PALETTE = ("#2e86ab", "#e4572e", "#5b9a6f", "#8f6bb8", "#c99a2e", "#c2588b", "#3aa6a0", "#8a6d5a", "#7d8a99", "#98a03c")


@dataclass(frozen=True)
class Dot:
    """One image in the drawing, in its units from the left and from the top."""

    x: float
    y: float
    class_name: str
    number: int
    """Position of the class among those of the drawing."""
    index: int
    """Position of the image within its class."""


@dataclass(frozen=True)
class Drawing:
    """Real and distilled images in the plane, the colour of each class, and in words how they were projected and what was left out."""

    method: str
    real: list[Dot]
    distilled: list[Dot]
    colours: dict[str, str]
    rule: str


def drawing_of(embedding: Embedding, class_names: Sequence[str]) -> Drawing | None:
    """Return the points that have coordinates, scaled to the drawing; None if there are none. The classes decide the order of colours."""
    placed = [(point, point.x, point.y) for point in embedding.points if point.x is not None and point.y is not None]
    if not placed:
        return None
    names = list(dict.fromkeys([*class_names, *(point.class_name for point, _, _ in placed)]))
    numbers = {name: number for number, name in enumerate(names)}
    across, up = _scaled([x for _, x, _ in placed], WIDTH), _scaled([y for _, _, y in placed], HEIGHT)
    dots: dict[str, list[Dot]] = {kind: [] for kind in MAX_POINTS}
    for (point, _, _), x, y in zip(placed, across, up, strict=True):
        dots[point.kind].append(Dot(MARGIN + x, HEIGHT - MARGIN - y, point.class_name, numbers[point.class_name], point.index))
    thinned = [f"{most:,} of {len(dots[kind]):,} {kind} images" for kind, most in MAX_POINTS.items() if len(dots[kind]) > most]
    return Drawing(
        method=embedding.method,
        real=_thinned(dots["real"], MAX_POINTS["real"]),
        distilled=_thinned(dots["distilled"], MAX_POINTS["distilled"]),
        colours={
            name: PALETTE[number] if len(names) <= len(PALETTE) else f"hsl({round(360 * number / len(names))} 55% 52%)"
            for name, number in numbers.items()
        },
        rule=f"Drawn: {', '.join(thinned)}, evenly taken." if thinned else "",
    )


def _scaled(values: Sequence[float], extent: float) -> list[float]:
    """Return values mapped onto 0 to ``extent`` minus both margins."""
    low = min(values)
    span = (max(values) - low) or 1.0
    return [(extent - 2 * MARGIN) * (value - low) / span for value in values]


def _thinned(dots: list[Dot], most: int) -> list[Dot]:
    return [dots[place * len(dots) // most] for place in range(most)] if len(dots) > most else dots


MAX_TABLE = 25
"""Most classes whose matrix is a table with numbers."""
LISTED = 10
"""Most confusions that are named."""
_CONFUSED_INK = (46, 134, 171)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix; rows are true classes, columns predictions."""

    names: Sequence[str]
    counts: Sequence[Sequence[int]]
    """Test images, [C, C]."""
    shares: list[list[float]]
    """Counts over the images of the true class, [C, C]; 0 for a class without images."""
    picture: str | None
    """The shares as a data URI, one pixel per cell, if there are too many classes for a table."""
    common: list[tuple[str, str, int, float]]
    """The most frequent confusions: true class, predicted class, images, share of the true class."""


def confusion_of(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Confusion:
    """Return the matrix of test images [C, C], whose rows are true classes, ready for the page."""
    matrix = np.array(counts, dtype=np.int64).reshape(len(names), len(names))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    places = [divmod(int(place), len(names)) for place in order]
    return Confusion(
        names,
        counts,
        shares.tolist(),
        picture=_picture(shares) if len(names) > MAX_TABLE else None,
        common=[
            (names[true], names[guess], counts[true][guess], float(shares[true, guess])) for true, guess in places if wrong[true, guess]
        ],
    )


def _picture(shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    """Return the shares drawn as opacity, so that the page's background shows through."""
    pixels = np.empty((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _CONFUSED_INK
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    return data_uri(png_of(Image.fromarray(pixels)))
