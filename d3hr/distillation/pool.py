"""One pool of candidate groups, scored against all classes at once.

In units of sigma the mean term of class c is sqrt(zbar^2 . sigma_c^2) and its std term sqrt((s - 1)^2 . sigma_c^2), so a block of
candidates is scored against all classes with two matrix products, while the skewness of a candidate does not depend on the class at all.
Each class sees the pool through its own permutation of the dimensions, so that classes do not share noise.

The pool is drawn in blocks of fixed size, each with a seed of its own: any process can search any range of blocks, and
:func:`better_of` joins what they find, to the same winners however the blocks are shared out. Drawing costs more than scoring; with
more than one thread, blocks are drawn ahead. Memory is bounded whatever M is, and the winner is drawn again from its block.

Legend: M candidate groups, K images in a group, D dimensions (those of latents and, of a Gaussian that has any, its loadings), C classes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.settings import GroupSettings
from d3hr.errors import DataError
from d3hr.seeds import generator_for

BLOCK_VALUES = 2**22
"""Values drawn with one seed: 16 MiB in float32."""
MEMORY_BUDGET = 2**28
"""Bytes that a search holds beside the variances, unless told otherwise: 256 MiB."""
_CACHED_VALUES = 2**18
"""Values whose moments a CPU takes at once: few enough to stay in its cache."""
_SMALLEST = 1e-36
"""In place of the cube of a std that is zero, whose dimension counts as without skewness."""
_SCORES = 2**22
"""Largest number of scores in memory: with many classes and small groups, a block is scored in parts."""
_BLOCKS_OF_A_PIECE = 32
"""Blocks that are searched at once when a search is shared out."""
_SCORING_BLOCKS = 4
"""What scoring a block holds at most, in blocks: the block, three terms of its candidates at K = 1."""


class Winners(NamedTuple):
    """The best candidate of each class: its score (float32 [C]) and its index in the pool (int64 [C])."""

    score: Tensor
    candidate: Tensor

    @classmethod
    def of_none(cls, classes: int) -> Winners:
        """Return what any candidate is better than."""
        return cls(torch.full((classes,), torch.inf), torch.zeros(classes, dtype=torch.int64))


def block_size(ipc: int, dimensions: int) -> int:
    """Return how many candidate groups of the pool are drawn with one seed."""
    return max(1, BLOCK_VALUES // (ipc * dimensions))


def number_of_blocks(settings: GroupSettings, dimensions: int) -> int:
    """Return the blocks that the candidates of a search fill, the last of them perhaps in part."""
    return math.ceil(settings.num_candidates / block_size(settings.ipc, dimensions))


def draw_block(index: int, settings: GroupSettings, dimensions: int, out: Tensor | None = None) -> Tensor:
    """Return the standard-normal candidates [M of a block, K, D] (float32) of one block of the pool, in ``out`` if it is given."""
    shape = (block_size(settings.ipc, dimensions), settings.ipc, dimensions)
    return (torch.empty(shape) if out is None else out).normal_(generator=generator_for(settings.seed, "pool", index))


def permutation(name: str, dimensions: int, settings: GroupSettings) -> Tensor:
    """Return which dimension of the pool each dimension [D] of a class is."""
    if not settings.seed_by_class:
        return torch.arange(dimensions)
    return torch.randperm(dimensions, generator=generator_for(settings.seed, "permutation", name))


def pool_row(name: str, gaussian: ClassGaussian, settings: GroupSettings) -> Tensor:
    """Return sigma^2 of a class's coordinates in the pool's order of dimensions, float32 [D]: all that a search knows of it."""
    spread = gaussian.spread
    row = torch.empty(len(spread))
    row[permutation(name, len(row), settings)] = spread.square().float()
    return row


def pool_variances(gaussians: Mapping[str, ClassGaussian], settings: GroupSettings) -> Tensor:
    """Return sigma^2 of each class in the pool's order of dimensions, float32 [D, C].

    Raises:
        DataError: the Gaussians differ in D.
    """
    return side_by_side([pool_row(name, gaussian, settings) for name, gaussian in gaussians.items()])


def side_by_side(rows: Sequence[Tensor]) -> Tensor:
    """Return the rows [D] of :func:`pool_row` as one tensor [D, C].

    Raises:
        DataError: the Gaussians differ in D.
    """
    sizes = sorted({len(row) for row in rows})
    if len(sizes) > 1:
        raise DataError(
            "The class Gaussians do not have the same number of dimensions.", found=f"{sizes}", hint="use statistics of one prior."
        )
    return torch.stack(list(rows)).T


def search_blocks(
    variances: Tensor,
    settings: GroupSettings,
    start: int = 0,
    stop: int | None = None,
    *,
    memory_budget: int | None = None,
    device: str | torch.device = "cpu",
) -> Winners:
    """Return the best candidate of each class among blocks ``start`` to ``stop`` of the pool; of equal ones the first.

    Noise is drawn on the CPU wherever it is scored. Two devices, or two numbers of threads, can differ only where scores tie to rounding.

    Args:
        variances: what :func:`pool_variances` gave [D, C].
        settings: number of candidates, images in a group, weights and seed.
        start: first block.
        stop: the block after the last; by default all blocks are searched.
        memory_budget: bytes to hold beside the variances, by default 256 MiB: decides how many blocks are drawn ahead, and no result. One
            block is drawn and scored at a time in any case, in at most 64 MiB and three times 16 MiB for the scores.
        device: where candidates are scored.
    """
    dimensions, classes = variances.shape
    per_block, rows = block_size(settings.ipc, dimensions), max(1, _SCORES // classes)
    variances = variances.to(device)
    found = Winners(*(value.to(variances.device) for value in Winners.of_none(classes)))
    last = min(number_of_blocks(settings, dimensions) if stop is None else stop, number_of_blocks(settings, dimensions))
    budget = MEMORY_BUDGET if memory_budget is None else memory_budget
    ahead = max(0, budget // (4 * per_block * settings.ipc * dimensions) - _SCORING_BLOCKS)
    with closing(_drawn(range(start, last), settings, dimensions, _drawing_threads(variances.device), ahead)) as blocks:
        for index, block in zip(range(start, last), blocks, strict=True):
            first = index * per_block
            count = min(per_block, settings.num_candidates - first)
            for part in range(0, count, rows):
                scores = pool_scores(block[part : min(part + rows, count)].to(variances.device), variances, settings)
                low, place = scores.min(dim=0)
                found = better_of(found, Winners(low, first + part + place))
    return Winners(found.score.cpu(), found.candidate.cpu())


@dataclass(frozen=True)
class Searching:
    """A search as work for any process: its pieces are ranges of blocks.

    Attributes:
        variances: what :func:`pool_variances` gave [D, C].
        settings: number of candidates, images in a group, weights and seed.
        memory_budget: bytes to hold beside the variances, in each process.
        device: where candidates are scored.
    """

    variances: Tensor
    settings: GroupSettings
    memory_budget: int | None = None
    device: str = "cpu"

    def pieces(self) -> list[range]:
        """Return the ranges of blocks."""
        blocks = number_of_blocks(self.settings, len(self.variances))
        return [range(start, min(start + _BLOCKS_OF_A_PIECE, blocks)) for start in range(0, blocks, _BLOCKS_OF_A_PIECE)]

    def open(self) -> Callable[[range], Winners]:
        """Return the function that searches a range."""
        return lambda blocks: search_blocks(
            self.variances, self.settings, blocks.start, blocks.stop, memory_budget=self.memory_budget, device=self.device
        )


def better_of(one: Winners, other: Winners) -> Winners:
    """Return the better candidate of each class; of equal ones that of the lower index, so that the order of merging decides nothing."""
    better = (other.score < one.score) | ((other.score == one.score) & (other.candidate < one.candidate))
    return Winners(torch.where(better, other.score, one.score), torch.where(better, other.candidate, one.candidate))


def pool_scores(block: Tensor, variances: Tensor, settings: GroupSettings) -> Tensor:
    """Return the group scores [M, C] of standard-normal candidates [M, K, D] for all classes, whose sigma^2 are given as [D, C]."""
    mean_gaps, std_gaps, skewness = _terms(block, settings)
    score = (mean_gaps @ variances).sqrt_().mul_(settings.weights[0])
    if std_gaps is not None:
        score += (std_gaps @ variances).sqrt_().mul_(settings.weights[1])
    return score.add_(skewness[:, None], alpha=settings.weights[2])


def _terms(block: Tensor, settings: GroupSettings) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return mean^2 [M, D], (std - 1)^2 [M, D] (none at K = 1) and the norm of the skewness [M] of candidates [M, K, D].

    A part of the block at a time, so that it is read from memory once. The powers are of deviations from the mean: raw power sums would
    save a pass, but lose all digits where the images of a small group happen to be close to each other.
    """
    candidates, k, d = block.shape
    at_once = min(candidates, max(1, _CACHED_VALUES // (k * d)) if block.device.type == "cpu" else candidates)
    mean_gaps, skewness = block.new_empty(candidates, d), block.new_zeros(candidates)
    if k == 1:
        return torch.square(block[:, 0], out=mean_gaps), None, skewness
    std_gaps = block.new_empty(candidates, d)
    centred, powers = block.new_empty(2, at_once, k, d)
    for start in range(0, candidates, at_once):
        part = slice(start, min(start + at_once, candidates))
        deviations, power = centred[: part.stop - start], powers[: part.stop - start]
        mean = block[part].sum(dim=1, keepdim=True).div_(k)
        torch.sub(block[part], mean, out=deviations)
        torch.mul(deviations, deviations, out=power)
        variance = power.sum(dim=1).div_(k - 1)
        std = variance.sqrt()
        torch.square(mean[:, 0], out=mean_gaps[part])
        torch.square(std - 1, out=std_gaps[part])
        if k >= 3 and settings.weights[2]:
            cubed = variance.mul_(std).clamp_(min=_SMALLEST)
            if settings.skewness == "per_dimension":
                n, sums = k, power.mul_(deviations).sum(dim=1).div_(cubed)
            else:
                n, sums = d, power.mul_(deviations).div_(cubed[:, None]).sum(dim=2)
            skewness[part] = torch.linalg.vector_norm(sums, dim=1) * (n / ((n - 1) * (n - 2)))
    return mean_gaps, std_gaps, skewness


def _drawing_threads(device: torch.device) -> int:
    """Return how many threads draw while one scores: those that PyTorch may use, beside the one that scores on a CPU."""
    return torch.get_num_threads() - (device.type == "cpu")


def _drawn(indices: range, settings: GroupSettings, dimensions: int, threads: int, ahead: int) -> Generator[Tensor, None, None]:
    """Yield the blocks of ``indices`` in order, up to ``ahead`` of them drawn before they are asked for.

    A block is overwritten when the next one is asked for.
    """
    ahead = min(ahead, 2 * threads)
    shape = (block_size(settings.ipc, dimensions), settings.ipc, dimensions)
    if not ahead:
        buffer = torch.empty(shape)
        for index in indices:
            yield draw_block(index, settings, dimensions, buffer)
        return
    drawing: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        free = [torch.empty(shape) for _ in range(ahead + 1)]
        for index in indices:
            drawing.append(pool.submit(draw_block, index, settings, dimensions, free.pop()))
            if not free:
                block = drawing.popleft().result()
                yield block
                free.append(block)
        while drawing:
            yield drawing.popleft().result()
