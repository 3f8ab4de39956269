"""Chooses, for each class, a group of latents that represents its Gaussian (D3HR, group sampling).

The search shares its draws: in units of sigma the mean term of class c is sqrt(zbar^2 . sigma_c^2) and the std term
sqrt((s - 1)^2 . sigma_c^2), so one pool of candidates is scored against all classes with two matrix products, while the skewness of a
candidate does not depend on the class at all. Each class sees the pool through its own permutation of the dimensions, so that classes
do not share noise. The pool is drawn in blocks of fixed size, each with its own seed: memory is bounded whatever M is, and the winner is
drawn again from its block.

Legend: M candidate groups, K images in a group, D dimensions, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.settings import GroupSettings
from d3hr.errors import DataError, settings_error
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for

BLOCK_VALUES = 2**22
"""Values drawn at once: 16 MiB in float32, of which the search holds about four copies."""


def group_score(
    groups: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5),
    skewness: Literal["per_dimension", "per_image"] = "per_dimension",
) -> Tensor:
    """Return how far each group is from a Gaussian: w_mu |mean - mu| + w_sigma |std - sigma| + w_gamma |skewness|.

    Norms are Euclidean over D; the std is unbiased. One image has no std and no skewness, two have no skewness: those terms drop out.

    Args:
        groups: candidate groups [M, K, D].
        mean: mu [D].
        std: sigma [D].
        weights: w_mu, w_sigma, w_gamma.
        skewness: ``per_dimension``, over the K images with the factor K/((K-1)(K-2)); or ``per_image``, as the released code has it,
            over the D dimensions of each image with the factor D/((D-1)(D-2)), the norm taken over the K images.

    Returns:
        Scores [M]; lower is better.
    """
    score: Tensor = weights[0] * torch.linalg.vector_norm(groups.mean(dim=1) - mean, dim=-1)
    if groups.shape[1] >= 2:
        score = score + weights[1] * torch.linalg.vector_norm(groups.std(dim=1) - std, dim=-1)
    if groups.shape[1] >= 3 and weights[2]:
        score = score + weights[2] * skewness_norm(groups, skewness)
    return score


def skewness_norm(groups: Tensor, skewness: Literal["per_dimension", "per_image"]) -> Tensor:
    """Return the norm [M] of the sample skewness of groups [M, K, D], K >= 3; a dimension without spread counts as zero."""
    _, k, d = groups.shape
    spread = groups.std(dim=1, keepdim=True)
    cubes = ((groups - groups.mean(dim=1, keepdim=True)) / torch.where(spread > 0, spread, torch.inf)) ** 3
    n, axis = (k, 1) if skewness == "per_dimension" else (d, 2)
    norm: Tensor = torch.linalg.vector_norm(cubes.sum(dim=axis) * (n / ((n - 1) * (n - 2))), dim=-1)
    return norm


def select_groups(
    gaussians: Mapping[str, ClassGaussian],
    ipc: int,
    *,
    strategy: Literal["search", "exact", "random"] = "search",
    num_candidates: int = 1_000_000,
    seed: int = 0,
    progress: Progress = SILENT,
    **settings: Any,
) -> dict[str, Tensor]:
    """Return a group of latents [K, D] (float64) for each class.

    Args:
        gaussians: the Gaussian of each class, all of the same D.
        ipc: images per class, K.
        strategy: ``search``, ``exact`` or ``random``; at K = 1 ``exact`` searches, as the mean itself denoises to a flat picture.
        num_candidates: M of a search.
        seed: seed of the draws; a class's group depends on it and the class's name, not on the other classes.
        progress: where to report a search.
        settings: further fields of :class:`~d3hr.distillation.settings.GroupSettings`.

    Raises:
        SettingsError: a setting is unknown or out of range.
    """
    try:
        chosen = GroupSettings(ipc=ipc, strategy=strategy, num_candidates=num_candidates, seed=seed, **settings)
    except ValidationError as error:
        raise settings_error(error) from None
    candidates = search_candidates(gaussians, chosen, progress)
    return {name: draw_group(name, gaussian, chosen, candidates.get(name)) for name, gaussian in gaussians.items()}


def search_candidates(gaussians: Mapping[str, ClassGaussian], settings: GroupSettings, progress: Progress = SILENT) -> dict[str, int]:
    """Return the index of each class's best candidate in the shared pool; empty where the strategy does not search.

    Raises:
        DataError: the Gaussians differ in D.
    """
    if not searches(settings) or not gaussians:
        return {}
    sizes = sorted({len(gaussian.mean) for gaussian in gaussians.values()})
    if len(sizes) > 1:
        raise DataError(
            "The class Gaussians do not have the same number of dimensions.", found=f"{sizes}", do="use statistics of one prior."
        )
    dimensions, per_block = sizes[0], block_size(settings.ipc, sizes[0])
    variances = torch.stack([_spread_over_pool(name, gaussian, settings) for name, gaussian in gaussians.items()], dim=1)
    best = torch.full((len(gaussians),), torch.inf)
    winner = torch.zeros(len(gaussians), dtype=torch.int64)
    with progress.bar("searching groups", settings.num_candidates) as bar:
        for start in range(0, settings.num_candidates, per_block):
            count = min(per_block, settings.num_candidates - start)
            block = _block(start // per_block, settings, dimensions)[:count]
            low, place = _pool_scores(block, variances, settings).min(dim=0)
            better = low < best
            best, winner = torch.where(better, low, best), torch.where(better, start + place, winner)
            bar.update(start + count)
    return dict(zip(gaussians, winner.tolist(), strict=True))


def draw_group(name: str, gaussian: ClassGaussian, settings: GroupSettings, candidate: int | None = None) -> Tensor:
    """Return the group [K, D] (float64) of one class: the ``candidate`` that a search found, or what the strategy draws.

    Args:
        name: the class, from whose name its noise follows.
        gaussian: its Gaussian.
        settings: how to choose.
        candidate: index in the pool, where the strategy searches.
    """
    dimensions = len(gaussian.mean)
    if candidate is not None:
        block, place = divmod(candidate, block_size(settings.ipc, dimensions))
        noise = _block(block, settings, dimensions)[place][:, _permutation(name, dimensions, settings)].double()
    else:
        generator = generator_for(settings.seed, "group", name if settings.seed_by_class else "")
        if settings.strategy == "exact":
            noise = _standardised(settings.ipc, dimensions, settings.exact_std, generator)
        else:
            noise = torch.randn(settings.ipc, dimensions, generator=generator, dtype=torch.float64)
    return gaussian.mean + gaussian.std * noise


def searches(settings: GroupSettings) -> bool:
    """Return whether groups are found by a search: where it is asked for, and for ``exact`` groups of one image."""
    return settings.strategy == "search" or (settings.strategy == "exact" and settings.ipc == 1)


def _standardised(k: int, dimensions: int, exact_std: str, generator: torch.Generator) -> Tensor:
    """Draw [K, D] with mean 0 and std 1 in every dimension; for even K in mirrored pairs, which have no skewness either."""
    if k % 2 == 0:
        half = torch.randn(k // 2, dimensions, generator=generator, dtype=torch.float64)
        noise = torch.stack([half, -half], dim=1).flatten(0, 1)
    else:
        noise = torch.randn(k, dimensions, generator=generator, dtype=torch.float64)
        noise = noise - noise.mean(dim=0)
    return noise / noise.std(dim=0, correction=1 if exact_std == "unbiased" else 0)


def block_size(ipc: int, dimensions: int) -> int:
    """Return how many candidate groups of the pool are drawn at once."""
    return max(1, BLOCK_VALUES // (ipc * dimensions))


def _block(index: int, settings: GroupSettings, dimensions: int) -> Tensor:
    """Draw the standard-normal candidates [M of a block, K, D] (float32) of one block of the pool."""
    shape = (block_size(settings.ipc, dimensions), settings.ipc, dimensions)
    return torch.randn(shape, generator=generator_for(settings.seed, "pool", index))


def _permutation(name: str, dimensions: int, settings: GroupSettings) -> Tensor:
    if not settings.seed_by_class:
        return torch.arange(dimensions)
    return torch.randperm(dimensions, generator=generator_for(settings.seed, "permutation", name))


def _spread_over_pool(name: str, gaussian: ClassGaussian, settings: GroupSettings) -> Tensor:
    """Return sigma^2 [D] (float32) in the pool's order of dimensions."""
    variance = torch.empty(len(gaussian.std))
    variance[_permutation(name, len(gaussian.std), settings)] = gaussian.std.square().float()
    return variance


def _pool_scores(block: Tensor, variances: Tensor, settings: GroupSettings) -> Tensor:
    """Return :func:`group_score` of standard-normal candidates [M, K, D] for every class, [M, C], with sigma^2 given as [D, C]."""
    score = settings.weights[0] * (block.mean(dim=1).square() @ variances).sqrt()
    if settings.ipc >= 2:
        score += settings.weights[1] * ((block.std(dim=1) - 1).square() @ variances).sqrt()
    if settings.ipc >= 3 and settings.weights[2]:
        score += settings.weights[2] * skewness_norm(block, settings.skewness)[:, None]
    return score
