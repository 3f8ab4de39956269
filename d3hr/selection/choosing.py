"""Chooses real images of each class: of those that the filter keeps, K by the rule.

A class is a task, so that any process can choose for any class, and a choice does not depend on how many there are.

Legend: N images of a class, K to choose, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.grouping import draw_group
from d3hr.distillation.mixture import clustering_subset, k_means_centres, largest_remainders, nearest_centres
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import DataError
from d3hr.seeds import derive_seed, generator_for
from d3hr.selection.features import Features
from d3hr.selection.groups import exact_group, search_group, snap_group
from d3hr.selection.rules import centre, easiest, facility_location, half_centre_half_margin, interval, margin, separation, undoubted
from d3hr.selection.spaces import principal_components

GROUPS_TO_SEPARATE = 5
"""Groups of a class among which the rule ``separation`` takes one."""


@dataclass(frozen=True)
class Confidence:
    """How sure networks are of the class of each image.

    Attributes:
        own: probability of the own class of each image, float [images of the class], by class.
        doubtful: which images probably have a wrong label, bool [images of the class], by class.
    """

    own: Mapping[str, Tensor]
    doubtful: Mapping[str, Tensor]


@dataclass(frozen=True)
class Chooser:
    """Chooses ``count`` images of each class; work whose tasks are class names.

    Attributes:
        features: the points of each class, and the settings.
        count: images to choose of each class.
        confidence: for filters and rules that need it.
        centroids: mean point of each class, float64 [F], for the rule ``separation``.
    """

    features: Features
    count: int
    confidence: Confidence | None = None
    centroids: Mapping[str, Tensor] | None = None

    def open(self) -> Callable[[str], list[int]]:
        """Return :meth:`choose`."""
        return self.choose

    def choose(self, name: str) -> list[int]:
        """Return the indices, in the class of the data, of the images chosen.

        Raises:
            DataError: the filter keeps too few images.
        """
        indices = self.features.indices(name)
        own = doubtful = None
        if self.confidence:
            own, doubtful = (of[name][torch.as_tensor(indices)] for of in (self.confidence.own, self.confidence.doubtful))
        try:
            kept = self._kept(len(indices), own, doubtful)
            rows = self._by_rule(name, kept, own, doubtful)
        except DataError as error:
            raise DataError(f"Class {name!r}: {error.what}", found=error.found, hint=error.hint) from error
        return [int(indices[int(kept[row])]) for row in rows]

    def _kept(self, count: int, own: Tensor | None, doubtful: Tensor | None) -> Tensor:
        """Return the positions of the images to choose from, int64, ascending."""
        settings = self.features.settings
        if settings.keep == "easiest":
            assert own is not None
            return torch.tensor(sorted(easiest(own, max(self.count, round(settings.easiest_share * count)))))
        if settings.keep == "undoubted":
            assert doubtful is not None
            return undoubted(doubtful, self.count)
        return torch.arange(count)

    def _by_rule(self, name: str, kept: Tensor, own: Tensor | None, doubtful: Tensor | None) -> list[int]:
        """Return which of the images kept are chosen, as positions among them."""
        settings, k = self.features.settings, self.count
        seed = derive_seed(settings.seed, "choice", name)
        if settings.rule in ("easiest", "margin"):
            assert own is not None and doubtful is not None
            return easiest(own[kept], k) if settings.rule == "easiest" else margin(own[kept], k, doubtful[kept])
        if settings.rule == "interval":
            return interval(self.features.losses(name)[kept], k)
        raw = self.features.of(name)
        points = principal_components(raw, settings.components) if settings.components else raw
        if settings.rule == "centre":
            return centre(points[kept], k, seed)
        if settings.rule == "facility":
            return facility_location(points[kept], k)
        if settings.rule == "centre_margin":
            assert own is not None and doubtful is not None
            return half_centre_half_margin(points[kept], own[kept], k, doubtful[kept], seed=seed)
        if settings.rule == "separation":
            assert self.centroids is not None
            groups = [choose_group(points[kept], k, settings, name, part) for part in range(GROUPS_TO_SEPARATE)]
            others = [centroid for other, centroid in self.centroids.items() if other != name]
            return separation(groups, raw[kept], self.centroids[name], torch.stack(others))
        return choose_group(points[kept], k, settings, name)


def choose_group(points: Tensor, k: int, settings: DistillSettings, name: str, part: int = 0) -> list[int]:
    """Return the rows of ``points`` that are a group of low score against their Gaussian, or that of each mode.

    The k images are allocated to modes, clusters of the points, by how many points each has.

    Args:
        points: what to choose from, float64 [N, F].
        k: images to choose.
        settings: strategy, score and modes.
        name: the class, from which all chance follows.
        part: number of the group, for several of a class.
    """
    modes = _modes(points, settings.modes, name)
    shares = largest_remainders(torch.bincount(modes).tolist(), k)
    chosen: list[int] = []
    for mode, share in enumerate(shares):
        if share:
            rows = torch.nonzero(modes == mode)[:, 0]
            group = _group(points[rows], share, settings, f"{name}\0{mode}\0{part}")
            chosen += rows[torch.tensor(group)].tolist()
    return chosen


def _group(points: Tensor, k: int, settings: DistillSettings, name: str) -> list[int]:
    """Return the k rows of ``points`` that the strategy chooses."""
    gaussian = ClassGaussian.empty(points.shape[1]).update(points)
    mean, std, weights, skewness = gaussian.mean, gaussian.std, settings.weights, settings.skewness
    generator = generator_for(settings.seed, "choice", name)
    if settings.strategy == "search":
        candidates, seed = settings.num_candidates, settings.seed
        return search_group(points, k, mean, std, num_candidates=candidates, weights=weights, skewness=skewness, seed=seed)
    if settings.strategy == "exact":
        return exact_group(points, k, mean, std, weights=weights, skewness=skewness, generator=generator)
    if settings.strategy == "snap":
        return snap_group(points, draw_group(name, gaussian, settings.model_copy(update={"ipc": k})))
    rows: list[int] = torch.randperm(len(points), generator=generator)[:k].tolist()
    return rows


def _modes(points: Tensor, modes: int, name: str) -> Tensor:
    """Return the mode of each point, int64 [N]."""
    if modes == 1:
        return torch.zeros(len(points), dtype=torch.int64)
    subset = points[torch.tensor(clustering_subset(range(len(points))))]
    centres = torch.from_numpy(k_means_centres(subset, min(modes, len(subset)), derive_seed("modes", name)))
    return nearest_centres(points, centres)
