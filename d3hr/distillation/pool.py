"""The search among random groups: one pool of candidates, drawn in blocks and scored against all classes at once.

For a candidate of standard-normal latents with mean zbar and standard deviation s, the group score of class c
(:func:`~d3hr.distillation.grouping.group_score`) is

    w_mu sqrt(zbar^2 . sigma_c^2) + w_sigma sqrt((s - 1)^2 . sigma_c^2) + w_gamma |skewness|,

two matrix products for all candidates of a block and all classes, and a skewness that does not depend on the class. Each class sees the
pool through its own permutation of the dimensions, so that classes do not share noise.

Each block has a seed of its own: any process can search any range of blocks, and merging what they found gives the same result in any
order. Drawing costs more than scoring, so with more than one thread blocks are drawn ahead. Memory is bounded whatever M is; the best
candidate is drawn again from its block.

Legend: M candidate groups, K images in a group, D coordinates (the dimensions of a latent and its loadings, if any), C classes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.settings import GroupSettings, Skewness
from d3hr.errors import DataError
from d3hr.execution.base import SERIAL, Execution
from d3hr.execution.worker import device_here
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for

SEARCHING = "searching groups"
"""Title of the bar of a search."""
BLOCK_VALUES = 2**22
"""Values drawn with one seed: 16 MiB in float32."""
MEMORY_BUDGET = 2**28
"""Bytes that a search may hold in addition to the variances, by default: 256 MiB."""
MAX_SCORES = 2**22
"""Largest number of scores in memory: with many classes and small groups, a block is scored in parts."""
_CACHED_VALUES = 2**18
"""Values whose moments a CPU takes at once: few enough to stay in its cache."""
_MIN_CUBED_STD = 1e-36
"""Replaces the cubed std of a dimension without spread, which counts as without skewness."""
BLOCKS_PER_TASK = 32
"""Blocks that one task of a shared search covers."""
_SCORING_BLOCKS = 4
"""Memory that scoring a block takes at most, in blocks: the block itself, and three terms of its candidates at K = 1."""


class SearchOptions(TypedDict, total=False):
    """The optional arguments of :func:`search_pool`, none of which decides its result."""

    progress: Progress
    memory_budget: int | None
    device: str
    execution: Execution


class BestCandidates(NamedTuple):
    """The best candidate of each class: its score (float32 [C]) and its index in the pool (int64 [C])."""

    scores: Tensor
    indices: Tensor

    @classmethod
    def empty(cls, classes: int) -> BestCandidates:
        """Return what any candidate is better than."""
        return cls(torch.full((classes,), torch.inf), torch.zeros(classes, dtype=torch.int64))

    def merge(self, other: BestCandidates) -> BestCandidates:
        """Return the better candidate of each class, of equal ones the one of lower index: the order of merging decides nothing."""
        better = (other.scores < self.scores) | ((other.scores == self.scores) & (other.indices < self.indices))
        return BestCandidates(torch.where(better, other.scores, self.scores), torch.where(better, other.indices, self.indices))


def block_size(ipc: int, dimensions: int) -> int:
    """Return how many candidate groups of the pool are drawn with one seed."""
    return max(1, BLOCK_VALUES // (ipc * dimensions))


def number_of_blocks(settings: GroupSettings, dimensions: int) -> int:
    """Return the number of blocks that the candidates of a search fill, the last perhaps in part."""
    return math.ceil(settings.num_candidates / block_size(settings.ipc, dimensions))


def draw_block(index: int, settings: GroupSettings, dimensions: int, out: Tensor | None = None) -> Tensor:
    """Return the standard-normal candidates [M of a block, K, D] (float32) of one block of the pool, in ``out`` if it is given."""
    shape = (block_size(settings.ipc, dimensions), settings.ipc, dimensions)
    return (torch.empty(shape) if out is None else out).normal_(generator=generator_for(settings.seed, "pool", index))


def permutation(name: str, dimensions: int, settings: GroupSettings) -> Tensor:
    """Return, for each dimension of class ``name``, the dimension of the pool that it takes its noise from: int64 [D]."""
    if not settings.seed_by_class:
        return torch.arange(dimensions)
    return torch.randperm(dimensions, generator=generator_for(settings.seed, "permutation", name))


def class_variances(name: str, gaussian: ClassGaussian, settings: GroupSettings) -> Tensor:
    """Return sigma^2 of a class's coordinates in the pool's order, float32 [D]: all of the class that a search uses."""
    std = gaussian.coordinate_std
    variances = torch.empty(len(std))
    variances[permutation(name, len(std), settings)] = std.square().float()
    return variances


def draw_candidate(index: int, name: str, settings: GroupSettings, dimensions: int) -> Tensor:
    """Return one candidate [K, D] (float32) of the pool, drawn again from its block, with the dimensions in the order of class ``name``."""
    block, position = divmod(index, block_size(settings.ipc, dimensions))
    return draw_block(block, settings, dimensions)[position][:, permutation(name, dimensions, settings)]


def search_pool(
    variances: Mapping[str, Tensor],
    settings: GroupSettings,
    *,
    progress: Progress = SILENT,
    memory_budget: int | None = None,
    device: str = "cpu",
    execution: Execution = SERIAL,
) -> dict[str, int]:
    """Return the index in the pool of each class's best candidate, of equal ones the first, by its :func:`class_variances`, all [D].

    Where it runs and how much memory it may hold decide no result; see :class:`PoolSearch`.
    """
    if not variances:
        return {}
    sizes = sorted({len(row) for row in variances.values()})
    if len(sizes) > 1:
        raise DataError(
            "The class Gaussians do not have the same number of dimensions.", found=f"{sizes}", hint="use statistics of one prior."
        )
    search = PoolSearch(torch.stack(list(variances.values())).T, settings, memory_budget, device)
    tasks, best, searched = search.tasks(), BestCandidates.empty(len(variances)), 0
    with progress.bar(SEARCHING, number_of_blocks(settings, sizes[0])) as bar:
        for task, candidates in execution.run(search, tasks):
            best = best.merge(candidates)
            searched += len(tasks[task])
            bar.update(searched)
    return dict(zip(variances, best.indices.tolist(), strict=True))


@dataclass(frozen=True)
class PoolSearch:
    """The search of a pool as :class:`~d3hr.execution.base.Work`, whose tasks are ranges of blocks."""

    variances: Tensor
    """:func:`class_variances` of all classes, [D, C]."""
    settings: GroupSettings
    memory_budget: int | None = None
    """Bytes to hold in addition to the variances, by default 256 MiB: decides how many blocks are drawn ahead, and no result. One block is
    drawn and scored at a time in any case, in at most 64 MiB and three times 16 MiB for the scores."""
    device: str = "cpu"
    """Where candidates are scored: a name that every process can understand, as ``cuda``. Noise is drawn on the CPU all the same."""

    def tasks(self) -> list[range]:
        """Return the ranges of blocks that together are the pool."""
        blocks = range(number_of_blocks(self.settings, len(self.variances)))
        return [blocks[start : start + BLOCKS_PER_TASK] for start in blocks[::BLOCKS_PER_TASK]]

    def open(self) -> Callable[[range], BestCandidates]:
        """Return :meth:`search` on the device that the name means in this process."""
        return replace(self, device=str(device_here(self.device))).search

    def search(self, blocks: range) -> BestCandidates:
        """Return the best candidate of each class among some blocks of the pool, of equal ones the first.

        Two devices, or two numbers of threads, can differ only where scores tie to rounding.
        """
        settings, (dimensions, classes) = self.settings, self.variances.shape
        per_block, per_part = block_size(settings.ipc, dimensions), max(1, MAX_SCORES // classes)
        variances = self.variances.to(self.device)
        best = BestCandidates(*(value.to(variances.device) for value in BestCandidates.empty(classes)))
        budget = MEMORY_BUDGET if self.memory_budget is None else self.memory_budget
        ahead = max(0, budget // (4 * per_block * settings.ipc * dimensions) - _SCORING_BLOCKS)
        threads = torch.get_num_threads() - (variances.device.type == "cpu")  # the others draw while one scores
        with closing(_draw_blocks(blocks, settings, dimensions, threads, ahead)) as drawn:
            for index, block in zip(blocks, drawn, strict=True):
                first = index * per_block
                count = min(per_block, settings.num_candidates - first)
                for part in range(0, count, per_part):
                    scores = pool_scores(block[part : min(part + per_part, count)].to(variances.device), variances, settings)
                    lowest, position = scores.min(dim=0)
                    best = best.merge(BestCandidates(lowest, first + part + position))
        return BestCandidates(best.scores.cpu(), best.indices.cpu())


def pool_scores(block: Tensor, variances: Tensor, settings: GroupSettings) -> Tensor:
    """Return the group scores [M, C] of standard-normal candidates [M, K, D] for all classes, of which sigma^2 is given, [D, C]."""
    mean, std, skewness = group_moments(block, settings.skewness if settings.weights[2] else None)
    scores = (mean.square_() @ variances).sqrt_().mul_(settings.weights[0])
    if std is not None:
        scores += (std.sub_(1).square_() @ variances).sqrt_().mul_(settings.weights[1])
    return scores.add_(skewness[:, None], alpha=settings.weights[2])


def group_moments(groups: Tensor, skewness: Skewness | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the moments of which :func:`~d3hr.distillation.grouping.group_score` is made, of many groups [M, K, D] in little time.

    A part of the groups at a time, so that they are read from memory once. The powers are of deviations from the mean: raw power sums
    would save a pass, but lose all digits where the images of a small group happen to be close to each other.

    Returns:
        mean [M, D]; std [M, D] (None at K = 1); and the norm of the ``skewness`` [M], zero where it is None or K is below 3.
    """
    candidates, k, d = groups.shape
    at_once = min(candidates, max(1, _CACHED_VALUES // (k * d)) if groups.device.type == "cpu" else candidates)
    means, norms = groups.new_empty(candidates, d), groups.new_zeros(candidates)
    if k == 1:
        return means.copy_(groups[:, 0]), None, norms
    stds = groups.new_empty(candidates, d)
    all_deviations, all_powers = groups.new_empty(2, at_once, k, d)
    for start in range(0, candidates, at_once):
        part = slice(start, min(start + at_once, candidates))
        deviations, powers = all_deviations[: part.stop - start], all_powers[: part.stop - start]
        mean = torch.div(groups[part].sum(dim=1), k, out=means[part])
        torch.sub(groups[part], mean[:, None], out=deviations)
        torch.mul(deviations, deviations, out=powers)
        variance = powers.sum(dim=1).div_(k - 1)
        std = torch.sqrt(variance, out=stds[part])
        if k >= 3 and skewness:
            cubed_std = variance.mul_(std).clamp_(min=_MIN_CUBED_STD)
            if skewness == "per_dimension":
                n, sums = k, powers.mul_(deviations).sum(dim=1).div_(cubed_std)
            else:
                n, sums = d, powers.mul_(deviations).div_(cubed_std[:, None]).sum(dim=2)
            norms[part] = torch.linalg.vector_norm(sums, dim=1) * (n / ((n - 1) * (n - 2)))
    return means, stds, norms


def _draw_blocks(blocks: range, settings: GroupSettings, dimensions: int, threads: int, ahead: int) -> Generator[Tensor, None, None]:
    """Yield the blocks in order, up to ``ahead`` of them drawn beforehand by ``threads``; asking for the next overwrites the last."""
    shape = (block_size(settings.ipc, dimensions), settings.ipc, dimensions)
    free = [torch.empty(shape) for _ in range(1 + min(ahead, 2 * threads))]
    drawing: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for index in blocks:
            drawing.append(pool.submit(draw_block, index, settings, dimensions, free.pop()))
            if not free:
                block = drawing.popleft().result()
                yield block
                free.append(block)
        while drawing:
            yield drawing.popleft().result()
