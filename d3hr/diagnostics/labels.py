"""Whether the classes of real images agree with those of the images around them.

Legend: N real points, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from d3hr.diagnostics.spaces import Array

NEIGHBOURS = 10
CLEAR = 8
"""An image lies clearly within a class if so many of its nearest are of that class. Where the classes lie apart and a share p of the labels
is wrong, about that share of these images is of another class than the one around them: their neighbours outvote the wrong labels."""
MOST_POINTS = 10_000
"""Real images, at most, that are looked at; as many of each class."""


@dataclass(frozen=True)
class LabelAgreement:
    """How labels and neighbours agree; a share is None where nothing can be counted.

    Attributes:
        clear: share of real images that lie clearly within one class, be it theirs or not.
        contradicted: share of these whose own class is another one.
    """

    clear: float | None = None
    contradicted: float | None = None


def label_agreement(classes: list[Array]) -> LabelAgreement:
    """Ask the 10 nearest of each real image for its class.

    Args:
        classes: real points [N, D] of each class, in random order.

    Returns:
        The agreement; without shares where a class has too few points for its images to lie clearly within it.
    """
    from sklearn.neighbors import NearestNeighbors

    used = [points[: max(1, MOST_POINTS // len(classes))] for points in classes]
    if len(used) < 2 or min(len(points) for points in used) <= CLEAR:
        return LabelAgreement()
    points, labels = np.concatenate(used), np.repeat(np.arange(len(used)), [len(points) for points in used])
    around = labels[NearestNeighbors(n_neighbors=NEIGHBOURS).fit(points).kneighbors(return_distance=False)]
    votes = np.apply_along_axis(np.bincount, 1, around, minlength=len(used))
    clear = votes.max(axis=1) >= CLEAR
    wrong = votes.argmax(axis=1)[clear] != labels[clear]
    return LabelAgreement(float(clear.mean()), float(wrong.mean()) if clear.any() else None)
