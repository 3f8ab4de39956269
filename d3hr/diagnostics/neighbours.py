"""Measures on nearest neighbours: copies of real images, overlap of two sets of images, and labels that their neighbours contradict.

Legend: N real points, K distilled points, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d3hr.diagnostics.spaces import Array, mean_of_known

COPY_THRESHOLD = 1 / 3
"""An image three times nearer to a real one than real ones usually are to each other counts as copied. In the many dimensions of an
image distances hardly vary, so that a new image comes nowhere near this; in a handful of dimensions it would by chance."""
SUPPORT_NEIGHBOURS = 5
"""Neighbour whose distance is a point's radius, as in arXiv 2002.09797; where there are fewer points, their farthest."""
LABEL_NEIGHBOURS, CLEAR = 10, 8
"""An image lies clearly within a class if 8 of its 10 nearest are of that class. Where the classes lie apart and a share p of the labels is
wrong, about that share of these images is of another class than the one around them: their neighbours outvote the wrong labels."""
LABELLED_POINTS = 10_000
"""Real images, at most, whose labels are compared with their neighbours'; as many of each class."""


@dataclass(frozen=True)
class Nearest:
    """The rows [K] of the real points nearest to distilled ones, and their distances [K] in units of the real points' median distance to
    their own nearest; None if that is unknown."""

    rows: Array
    ratios: Array | None


def nearest(real: Array, distilled: Array) -> Nearest:
    """Return the nearest of real points [N, D] for distilled points [K, D].

    Real images that occur twice are left out of the median, since they say something of the collection, not of its spread.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1).fit(real)
    apart, rows = search.kneighbors(distilled)
    if len(real) < 2:
        return Nearest(rows[:, 0], None)
    own = search.kneighbors()[0][:, 0]
    # Distances come from |a|^2 - 2ab + |b|^2, so equal images may seem a rounding error apart.
    own = own[own > 1e-5 * np.abs(real).max()]
    return Nearest(rows[:, 0], apart[:, 0] / np.median(own) if len(own) else None)


def share_copied(ratios: Array) -> float:
    """Return the share, 0 to 1, of ratios [K] below :data:`COPY_THRESHOLD`."""
    return float((ratios < COPY_THRESHOLD).mean())


def diversity(points: Array) -> float | None:
    """Return the mean distance between two of the points [K, D]; None for fewer than two.

    Its value on a sample of real images is what a random subset of them, of any size, has on average.
    """
    from scipy.spatial.distance import pdist

    return float(pdist(points.astype(np.float64)).mean()) if len(points) > 1 else None


@dataclass(frozen=True)
class Support:
    """How distilled and real points overlap; a figure is None if there are too few points for it.

    Attributes:
        precision: share of distilled points within the radius of a real one (arXiv 1904.06991).
        recall: share of real points within the radius of a distilled one (arXiv 1904.06991).
        density: number of real radii that a distilled point lies in, divided by the number of neighbours (arXiv 2002.09797); may exceed 1.
        coverage: share of real points that have a distilled one within their radius (arXiv 2002.09797).
    """

    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None


def support(real: Array, distilled: Array, neighbours: int = SUPPORT_NEIGHBOURS) -> Support:
    """Return precision, recall, density and coverage of distilled points [K, D] against real points [N, D].

    A radius needs a second point of the same kind: with N = 1 all figures are None, with K = 1 recall is.
    """
    from sklearn.metrics import pairwise_distances

    if len(real) < 2 or len(distilled) == 0:
        return Support()
    apart = pairwise_distances(distilled, real)
    used, radii = _radii(real, neighbours)
    inside = apart <= radii
    recall = None
    if len(distilled) > 1:
        recall = float((apart <= _radii(distilled, neighbours)[1][:, None]).any(axis=0).mean())
    return Support(
        precision=float(inside.any(axis=1).mean()),
        recall=recall,
        density=float(inside.sum() / (used * len(distilled))),
        coverage=float(inside.any(axis=0).mean()),
    )


def mean_support(supports: Sequence[Support]) -> Support:
    """Return the mean of each figure over those that have it."""
    return Support(*(mean_of_known(getattr(each, name) for each in supports) for name in ("precision", "recall", "density", "coverage")))


def _radii(points: Array, neighbours: int) -> tuple[int, Array]:
    """Return which neighbour is used, and each point's distance to it; a point is not its own neighbour."""
    from sklearn.neighbors import NearestNeighbors

    used = min(neighbours, len(points) - 1)
    apart, _ = NearestNeighbors(n_neighbors=used).fit(points).kneighbors()
    return used, apart[:, -1]


@dataclass(frozen=True)
class LabelAgreement:
    """How the classes of real images agree with those of their 10 nearest; None where nothing can be counted.

    Attributes:
        clear: share, 0 to 1, of images that lie clearly within one class.
        contradicted: share, 0 to 1, of these whose own class is another one.
        separation: how well the space tells classes apart: the accuracy of the neighbours' most frequent class, scaled so that naming the
            largest class always is 0 and naming every class right is 1 (Cohen's kappa against that guess).
    """

    clear: float | None = None
    contradicted: float | None = None
    separation: float | None = None


def label_agreement(classes: Sequence[Array]) -> LabelAgreement:
    """Compare the class of each real image with those of its 10 nearest; points [N, D] of each class are in random order.

    The result has no shares if a class has too few points for its images to lie clearly within it.
    """
    from sklearn.neighbors import NearestNeighbors

    used = [points[: max(1, LABELLED_POINTS // len(classes))] for points in classes]
    if len(used) < 2 or min(len(points) for points in used) <= CLEAR:
        return LabelAgreement()
    points, labels = np.concatenate(used), np.repeat(np.arange(len(used)), [len(points) for points in used])
    around = labels[NearestNeighbors(n_neighbors=LABEL_NEIGHBOURS).fit(points).kneighbors(return_distance=False)]
    votes = np.apply_along_axis(np.bincount, 1, around, minlength=len(used))
    clear, agree = votes.max(axis=1) >= CLEAR, votes.argmax(axis=1) == labels
    guess = np.bincount(labels).max() / len(labels)
    separation = float((agree.mean() - guess) / (1 - guess))
    return LabelAgreement(float(clear.mean()), float(1 - agree[clear].mean()) if clear.any() else None, separation)
