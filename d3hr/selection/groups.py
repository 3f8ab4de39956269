"""Groups of real images: K of the N images of a class that together represent its Gaussian, by the group score of D3HR.

The candidates of :mod:`d3hr.distillation.grouping` are drawn from the Gaussian; here they are made of rows that exist. ``exact_group``
descends the score by swaps, ``search_group`` takes the best of M random groups, ``snap_group`` replaces drawn rows by real ones.

Legend: M candidate groups, N images of a class, K images in a group, F features.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from d3hr.distillation.grouping import exact_noise, group_score
from d3hr.distillation.pool import group_moments
from d3hr.distillation.settings import Skewness
from d3hr.seeds import generator_for
from d3hr.selection.rules import medoids

STARTS = 4
"""Groups from which ``exact_group`` descends, unless more or fewer are asked for."""
MAX_ENUMERATED = 2**15
"""Classes of at most this many groups are searched completely by ``exact_group``."""
BLOCK_CANDIDATES = 2**12
"""Candidates of ``search_group`` that are drawn with one seed."""
_SCORED_VALUES = 2**18
"""Values of candidate groups that are held at once: 1 MiB in float32, a few of which stay in a CPU's cache."""
_LEAST_GAIN = 1e-12
"""Relative fall in the score below which a swap is rounding."""

_Score = Callable[[Tensor], Tensor]
"""Gives the group scores [M] of groups [M, K, F]."""


def exact_group(
    features: Tensor,
    k: int,
    mean: Tensor,
    std: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5),
    skewness: Skewness = "per_dimension",
    generator: torch.Generator,
    starts: int = STARTS,
    max_enumerated: int = MAX_ENUMERATED,
) -> list[int]:
    """Return K rows, in ascending order, whose group score no swap of one of them lowers.

    A descent replaces one row after the other by the one that lowers the score most, until no replacement of any does. It starts from the
    rows nearest to an exact draw of the Gaussian (:func:`snap_group`), then from random ones, and the lowest end is taken. Where the class
    has few groups all are scored, and the result is the best of all.

    Args:
        features: rows [N, F].
        k: rows to choose, at most N.
        mean: mu [F].
        std: sigma [F].
        weights: of the mean, std and skewness terms, as in :func:`~d3hr.distillation.grouping.group_score`.
        skewness: as there; ``per_image`` takes K times as long as ``per_dimension``.
        generator: draws the starts, on the CPU.
        starts: descents, at least 1.
        max_enumerated: number of groups up to which all are scored; 0 always descends.
    """
    mean, std = mean.double(), std.double()

    def score(groups: Tensor) -> Tensor:
        return group_score(groups.double(), mean, std, weights=weights, skewness=skewness)

    if math.comb(len(features), k) <= max_enumerated:
        return _best_of(features, itertools.combinations(range(len(features)), k), score)
    fast = k >= 2 and (skewness == "per_dimension" or k < 3 or not weights[2])
    scores_of = partial(_per_dimension, mean, std, weights) if fast else partial(_by_definition, score)
    ends = [_descend(features, start, scores_of) for start in _starts(features, k, mean, std, starts, generator)]
    return _best_of(features, ends, score)


def search_group(
    features: Tensor,
    k: int,
    mean: Tensor,
    std: Tensor,
    *,
    num_candidates: int,
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5),
    skewness: Skewness = "per_dimension",
    seed: int,
) -> list[int]:
    """Return the K rows, in ascending order, of the best of M random groups by the group score; of equal ones the first.

    The pool of candidates is the same for all classes of a seed: each is K uniform numbers, which a class of any size turns into K
    different rows. Candidates are scored on the device and in the precision of ``features``, in memory that does not grow with M.

    Args:
        features: rows [N, F].
        k: rows to choose, at most N.
        mean: mu [F].
        std: sigma [F].
        num_candidates: M, at least 1.
        weights: of the mean, std and skewness terms, as in :func:`~d3hr.distillation.grouping.group_score`.
        skewness: as there.
        seed: of the pool.
    """
    mean, std = mean.to(features), std.to(features)
    measured = skewness if weights[2] else None
    at_once = max(1, _SCORED_VALUES // (k * features.shape[1]))
    best, rows = math.inf, torch.arange(k)
    all_scores = features.new_empty(BLOCK_CANDIDATES)  # not in pieces: kept between large tensors they would fragment the memory
    for block in range(math.ceil(num_candidates / BLOCK_CANDIDATES)):
        candidates = candidate_block(block, len(features), k, seed)[: num_candidates - block * BLOCK_CANDIDATES]
        scores = all_scores[: len(candidates)]
        for part, out in zip(candidates.split(at_once), scores.split(at_once), strict=True):
            out.copy_(_scores(features[part.to(features.device)], mean, std, weights, measured))
        lowest, position = scores.min(dim=0)
        if lowest < best:
            best, rows = float(lowest), candidates[position]
    return sorted(rows.tolist())


def candidate_block(block: int, rows: int, k: int, seed: int) -> Tensor:
    """Return candidates of the pool, int64 [BLOCK_CANDIDATES, K]: each K different ones of so many rows, every choice equally likely.

    By Floyd's algorithm (Bentley and Floyd 1987, "A sample of brilliance"): for j = N-K to N-1 a row of 0 to j is drawn, and where it is
    taken already, row j is.
    """
    uniform = torch.rand(BLOCK_CANDIDATES, k, generator=generator_for(seed, "real pool", block), dtype=torch.float64)
    chosen = torch.full((BLOCK_CANDIDATES, k), -1)
    for position, largest in enumerate(range(rows - k, rows)):
        drawn = (uniform[:, position] * (largest + 1)).long()
        taken = (chosen[:, :position] == drawn[:, None]).any(dim=1)
        chosen[:, position] = torch.where(taken, largest, drawn)
    return chosen


def snap_group(features: Tensor, drawn: Tensor) -> list[int]:
    """Return a different row of ``features`` [N, F] for each row of ``drawn`` [K, F], K at most N: the least sum of squared distances."""
    return medoids(features, drawn.double().numpy())


def _scores(groups: Tensor, mean: Tensor, std: Tensor, weights: tuple[float, float, float], skewness: Skewness | None) -> Tensor:
    """Return the group scores [M] of groups [M, K, F], which are overwritten.

    Moments are taken of differences to the first row: where all rows have one value these are zero, so that its rounding is no spread.
    """
    origin = groups[:, 0].clone()
    means, stds, norms = group_moments(groups.sub_(origin[:, None]), skewness)
    scores = torch.linalg.vector_norm(means.add_(origin).sub_(mean), dim=1).mul_(weights[0])
    if stds is not None:
        scores += torch.linalg.vector_norm(stds.sub_(std), dim=1).mul_(weights[1])
    return torch.add(scores, norms, alpha=weights[2])


def _best_of(features: Tensor, groups: Iterable[Sequence[int]], score: _Score) -> list[int]:
    """Return the group of lowest score, in ascending order; of equal ones the first."""
    remaining, best, rows = iter(groups), math.inf, list[int]()
    while first := next(remaining, None):
        at_once = max(1, _SCORED_VALUES // (len(first) * features.shape[1]))
        part = [first, *itertools.islice(remaining, at_once - 1)]
        lowest, position = score(features[torch.tensor(part)]).min(dim=0)
        if lowest < best:
            best, rows = float(lowest), sorted(part[int(position)])
    return rows


def _starts(features: Tensor, k: int, mean: Tensor, std: Tensor, count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield groups to descend from: the rows nearest to an exact draw of the Gaussian, then random ones."""
    draw = exact_noise(k, len(mean), "unbiased", generator) if k > 1 else torch.zeros(1, len(mean), dtype=torch.float64)
    yield snap_group(features, mean + std * draw)
    for _ in range(count - 1):
        yield torch.randperm(len(features), generator=generator)[:k].tolist()


def _descend(features: Tensor, start: Sequence[int], scores_of: Callable[[Tensor, Tensor], Tensor]) -> list[int]:
    """Return the group that swaps lead to from ``start``; ``scores_of`` gives the scores [n] of rows [n, F] next to others [K-1, F]."""
    group, settled = list(start), 0
    at_once = max(1, _SCORED_VALUES // (2 * features.shape[1]))
    for member in itertools.cycle(range(len(group))):
        others = group[:member] + group[member + 1 :]
        kept = features[others].double()
        scores = torch.cat([scores_of(part.double(), kept) for part in features.split(at_once)])
        scores[others] = torch.inf
        best = int(scores.argmin())
        if scores[best] < scores[group[member]] * (1 - _LEAST_GAIN):
            group[member], settled = best, 0
        settled += 1
        if settled == len(group):
            break
    return group


def _by_definition(score: _Score, rows: Tensor, others: Tensor) -> Tensor:
    """Return the score [n] of the group of each of ``rows`` [n, F] and the ``others`` [K-1, F]."""
    at_once = max(1, len(rows) // (len(others) + 1))
    parts = (torch.cat([others.expand(len(part), -1, -1), part[:, None]], dim=1) for part in rows.split(at_once))
    return torch.cat([score(part) for part in parts])


def _per_dimension(mean: Tensor, std: Tensor, weights: tuple[float, float, float], rows: Tensor, others: Tensor) -> Tensor:
    """Return what :func:`_by_definition` does, K at least 2, of moments that are those of the others with one row added, in O(n F).

    With n = K-1 others of mean c and central sums M2, M3, and d the difference of a row to c (Pebay 2008, SAND2008-6212, eq. 2.1):
    mean c + d/K, M2 + d^2 n/K, M3 + d^3 n(n-1)/K^2 - 3 d M2/K.
    """
    n, k = len(others), len(others) + 1
    centre = others[0] + (others - others[0]).mean(dim=0)  # exact where all others have one value
    deviations = others - centre
    squares = deviations.square().sum(dim=0)
    gaps = rows - centre
    score = torch.linalg.vector_norm((gaps / k).add_(centre - mean), dim=1).mul_(weights[0])
    powers = gaps.square()
    variance = (powers * (n / k)).add_(squares).div_(k - 1)
    spread = variance.sqrt()
    if k >= 3 and weights[2]:
        cubes = powers.mul_(n * (n - 1) / k**2).sub_(squares * (3 / k)).mul_(gaps).add_(deviations.pow(3).sum(dim=0))
        cubes.div_(variance.mul_(spread).masked_fill_(spread == 0, torch.inf))
        score.add_(torch.linalg.vector_norm(cubes, dim=1), alpha=weights[2] * k / ((k - 1) * (k - 2)))
    return torch.add(score, torch.linalg.vector_norm(spread.sub_(std), dim=1), alpha=weights[1])
