"""Samples of a set and of the real images that it is compared with, a bounded number of each class, and their projection on the plane.

Legend: N real points, K distilled points, D features.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from d3hr.data.codec import to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.diagnostics.neighbours import nearest
from d3hr.diagnostics.spaces import Array, FeatureSpace, scaling
from d3hr.execution.base import Execution
from d3hr.progress import Progress
from d3hr.seeds import generator_for
from d3hr.sets.image_set import ImageSet

SEARCHED = 5000
"""Real images of a class, at most, among which the nearest are searched; memory holds those of one class at a time."""
KEPT, KEPT_IN_ALL = 500, 20_000
"""Real images of a class, and of all classes, at most, whose features stay in memory; at least twice the distilled ones of a class."""
PLOTTED, PLOTTED_IN_ALL = 50, 1000
"""Images of a class and of all classes, at most, in the plane: so many real ones and so many distilled ones."""
_BATCH = 64
_DRAWS = 5


@dataclass(frozen=True)
class ClassSample:
    """One class of a set with real images of the same class."""

    name: str
    real: Array
    """Features [N, D] of real images in random order."""
    indices: Array
    """Their positions within the class, int64 [N]."""
    distilled: Array
    """Features [K, D]."""
    nearest_positions: Array
    """Position, among the real images of all classes, of the nearest one of each distilled image, int64 [K]."""
    nearest_ratios: Array | None
    """Its distance in units of the usual (see :func:`~d3hr.diagnostics.neighbours.nearest`)."""
    searched: int
    """Number of real images that were searched."""


@dataclass(frozen=True)
class ClassSampler:
    """Takes the sample of a class, in the space as it is, as work whose tasks are class names.

    The choice of a class's real images depends on the seed and on the class's name.
    """

    distilled: ImageSet
    images: ImageData
    space: FeatureSpace
    seed: int

    def open(self) -> Callable[[str], ClassSample]:
        """Return the function that gives the sample of a class."""
        starts = accumulate(self.images.counts.values(), initial=0)
        return partial(self._sample, starts=dict(zip(self.images.class_names, starts, strict=False)))

    def _sample(self, name: str, starts: Mapping[str, int]) -> ClassSample:
        images, space = self.images, self.space
        ours = space.points(to_unit_range(self.distilled.of_class(name)))
        order = torch.randperm(images.counts[name], generator=generator_for(self.seed, "diagnosis", name))[:SEARCHED]
        real = np.concatenate([space.points(images.gather(part)[0]) for part in (starts[name] + order).split(_BATCH)])
        neighbours = nearest(real, ours)
        kept = max(2 * len(ours), min(KEPT, KEPT_IN_ALL // len(self.distilled.class_names)))
        indices = order.numpy()
        positions = starts[name] + indices[neighbours.rows]
        return ClassSample(name, real[:kept].copy(), indices[:kept].copy(), ours, positions, neighbours.ratios, searched=len(real))


def class_samples(sampler: ClassSampler, execution: Execution, progress: Progress) -> tuple[ClassSample, ...]:
    """Return the sample of every class, scaled so that the real images have mean 0 and mean squared norm 1."""
    names, found = sampler.distilled.class_names, dict[int, ClassSample]()
    with progress.bar(f"comparing in {sampler.space.name} space", len(names)) as bar:
        for index, sample in execution.run(sampler, names):
            found[index] = sample
            bar.update(len(found), note=sample.name)
    samples = [found[index] for index in range(len(names))]
    scaled = scaling(np.concatenate([sample.real for sample in samples]))
    return tuple(replace(sample, real=scaled(sample.real), distilled=scaled(sample.distilled)) for sample in samples)


def reference_draws(samples: Sequence[ClassSample], seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield, five times, as many random real points [K, D] of each class as there are distilled ones, and the other real points [N - K, D].

    Yields nothing if a class has fewer than twice as many real points as distilled ones.
    """
    if any(len(sample.real) < 2 * len(sample.distilled) for sample in samples):
        return
    for draw in range(_DRAWS):
        subsets, rests = [], []
        for sample in samples:
            order = torch.randperm(len(sample.real), generator=generator_for(seed, "reference", draw, sample.name)).numpy()
            subsets.append(sample.real[order[: len(sample.distilled)]])
            rests.append(sample.real[order[len(sample.distilled) :]])
        yield np.concatenate(subsets), np.concatenate(rests)


@dataclass(frozen=True)
class Point:
    """One image in the plane; ``index`` is its position within its class."""

    x: float | None
    y: float | None
    class_name: Annotated[str, Field(alias="class")]
    kind: Literal["real", "distilled"]
    index: int


@dataclass(frozen=True)
class Embedding:
    """Real and distilled images in the plane; ``method`` says in words how they were projected."""

    method: str = ""
    points: tuple[Point, ...] = ()


def embedding(samples: Sequence[ClassSample]) -> Embedding:
    """Return real and distilled images on the first two principal components of the real ones."""
    from sklearn.decomposition import PCA

    most = max(1, min(PLOTTED, PLOTTED_IN_ALL // len(samples)))
    real = np.concatenate([sample.real[:most] for sample in samples]).astype(np.float64)
    pca = PCA(n_components=min(2, *real.shape), svd_solver="full").fit(real)

    def points(name: str, kind: Literal["real", "distilled"], features: Array, indices: Iterable[int]) -> Iterator[Point]:
        for index, place in zip(indices, pca.transform(features.astype(np.float64)), strict=True):
            x, y = [*place.tolist(), 0.0][:2]
            yield Point(x, y, name, kind, int(index))

    placed: list[Point] = []
    for sample in samples:
        placed += points(sample.name, "real", sample.real[:most], sample.indices[:most])
        placed += points(sample.name, "distilled", sample.distilled[:most], range(len(sample.distilled[:most])))
    return Embedding(f"first two principal components of {len(real)} real images", tuple(placed))
