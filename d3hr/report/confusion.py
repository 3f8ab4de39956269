"""A confusion matrix for the page: a table of shaded cells where it can be read, else one picture, with the commonest confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from d3hr.encoding import png_of
from d3hr.report.pictures import data_uri

MAX_TABLE = 25
"""Most classes whose matrix is a table with numbers."""
_INK = (46, 134, 171)


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
    pixels[..., :3] = _INK
    pixels[..., 3] = np.round(255 * np.sqrt(shares))
    return data_uri(png_of(Image.fromarray(pixels)))
