"""Chooses, for each class, a group of latents that represents its Gaussian (D3HR, group sampling).

A ``search`` scores one pool of random groups against all classes (see :mod:`d3hr.distillation.pool`); ``exact`` makes a group whose moments
are those of the Gaussian.

Legend: M candidate groups, K images in a group, D dimensions, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.pool import (
    Searching,
    Winners,
    better_of,
    block_size,
    draw_block,
    number_of_blocks,
    permutation,
    pool_row,
    pool_variances,
    side_by_side,
)
from d3hr.distillation.settings import GroupSettings, Strategy
from d3hr.errors import DataError, settings_error
from d3hr.execution.base import SERIAL, Execution
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed, generator_for


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
    strategy: Strategy = "search",
    num_candidates: int = 1_000_000,
    seed: int = 0,
    progress: Progress = SILENT,
    memory_budget: int | None = None,
    device: str = "cpu",
    **settings: Any,
) -> dict[str, Tensor]:
    """Return a group of latents [K, D] (float64) for each class.

    Args:
        gaussians: the Gaussian of each class, all of the same D.
        ipc: images per class, K.
        strategy: ``search``, ``exact``, ``stratified`` or ``random``; at K = 1 ``exact`` searches, as the mean itself denoises to a flat
            picture, and so does ``stratified``, which has nothing to stratify.
        num_candidates: M of a search.
        seed: seed of the draws; a class's group depends on it and the class's name, not on the other classes.
        progress: where to report a search.
        memory_budget: bytes that a search may hold, by default 256 MiB; the groups do not depend on it.
        device: where a search scores its candidates; all noise is drawn on the CPU.
        settings: further fields of :class:`~d3hr.distillation.settings.GroupSettings`.

    Raises:
        SettingsError: a setting is unknown or out of range.
    """
    try:
        chosen = GroupSettings(ipc=ipc, strategy=strategy, num_candidates=num_candidates, seed=seed, **settings)
    except ValidationError as error:
        raise settings_error(error) from None
    candidates = search_candidates(gaussians, chosen, progress, memory_budget=memory_budget, device=device)
    return {name: draw_group(name, gaussian, chosen, candidates.get(name)) for name, gaussian in gaussians.items()}


def search_candidates(
    gaussians: Mapping[str, ClassGaussian],
    settings: GroupSettings,
    progress: Progress = SILENT,
    *,
    memory_budget: int | None = None,
    device: str = "cpu",
    execution: Execution = SERIAL,
) -> dict[str, int]:
    """Return the index of each class's best candidate in the shared pool; empty where the strategy does not search.

    Args:
        gaussians: the Gaussian of each class, all of the same D.
        settings: how to choose.
        progress: where to report.
        memory_budget: bytes that the search may hold (see :func:`~d3hr.distillation.pool.search_blocks`).
        device: where candidates are scored.
        execution: where the pool is searched.

    Raises:
        DataError: the Gaussians differ in D.
    """
    if not searches(settings) or not gaussians:
        return {}
    best = _best_candidates(
        pool_variances(gaussians, settings), settings, progress, memory_budget=memory_budget, device=device, execution=execution
    )
    return dict(zip(gaussians, best, strict=True))


def _best_candidates(
    variances: Tensor,
    settings: GroupSettings,
    progress: Progress,
    *,
    memory_budget: int | None = None,
    device: str = "cpu",
    execution: Execution = SERIAL,
) -> list[int]:
    """Return the index of the best candidate of each column of ``variances`` [D, C]."""
    work = Searching(variances, settings, memory_budget, device)
    pieces, found, done = work.pieces(), Winners.of_none(variances.shape[1]), 0
    with progress.bar("searching groups", number_of_blocks(settings, len(work.variances))) as bar:
        for index, winners in execution.run(work, pieces):
            found = better_of(found, winners)
            done += len(pieces[index])
            bar.update(done)
    best: list[int] = found.candidate.tolist()
    return best


def draw_group(name: str, gaussian: ClassGaussian, settings: GroupSettings, candidate: int | None = None) -> Tensor:
    """Return the group [K, D] (float64) of one class: the ``candidate`` that a search found, or what the strategy draws.

    Args:
        name: the class, from whose name its noise follows.
        gaussian: its Gaussian.
        settings: how to choose.
        candidate: index in the pool, where the strategy searches.
    """
    dimensions = gaussian.coordinates
    if not settings.temperature:
        return gaussian.mean.double().repeat(settings.ipc, 1)
    if candidate is not None:
        block, place = divmod(candidate, block_size(settings.ipc, dimensions))
        noise = draw_block(block, settings, dimensions)[place][:, permutation(name, dimensions, settings)].double()
    else:
        of = (settings.seed, "group", name if settings.seed_by_class else "")
        generator = generator_for(*of)
        if settings.strategy == "exact":
            noise = _standardised(settings.ipc, dimensions, settings.exact_std, generator)
        elif settings.strategy == "stratified":
            noise = _stratified(settings.ipc, dimensions, derive_seed(*of))
        else:
            noise = torch.randn(settings.ipc, dimensions, generator=generator, dtype=torch.float64)
    return gaussian.placed(noise, settings.temperature)


def mode_name(class_name: str, index: int) -> str:
    """Return the name under which a mode of a class draws; the first mode's is the class's own."""
    return f"{class_name}\0{index}" if index else class_name


def search_mixtures(
    mixtures: Mapping[str, ClassMixture], settings: GroupSettings, progress: Progress = SILENT, **how: Any
) -> dict[str, int]:
    """Return the index of each mode's best candidate, by the names of the modes, in the pool of groups of as many images as it gets.

    Args:
        mixtures: the mixture of each class, all of the same D.
        settings: how to choose; the images of a group are shared out over the modes of its class.
        progress: where to report.
        how: where and in how much memory, as :func:`search_candidates` takes it.

    Raises:
        DataError: the Gaussians differ in D, or at temperature 0 a class has fewer modes than images.
    """
    rows: dict[int, dict[str, Tensor]] = {}
    for name, mixture in mixtures.items():  # each may be read from its file
        for index, share in enumerate(_shares(name, mixture, settings)):
            if share and searches(_of_size(settings, share)):
                named = mode_name(name, index)
                rows.setdefault(share, {})[named] = pool_row(named, mixture.modes[index], settings)
    found: dict[str, int] = {}
    for share, of_modes in sorted(rows.items()):
        best = _best_candidates(side_by_side(list(of_modes.values())), _of_size(settings, share), progress, **how)
        found |= zip(of_modes, best, strict=True)
    return found


def _shares(name: str, mixture: ClassMixture, settings: GroupSettings) -> tuple[int, ...]:
    """Return how many images each mode gets: by weight, but at temperature 0, where a mode has only its mean to give, at most one."""
    if settings.temperature:
        return mixture.shares(settings.ipc)
    found = mixture.heaviest(settings.ipc)
    if sum(found) < settings.ipc:
        raise DataError(
            f"Class {name!r} has too few modes for a set without copies: at temperature 0 each gives its mean, and nothing else.",
            found=f"{sum(found)} modes with images for {settings.ipc} images",
            hint="give --temperature above 0, or more --modes where the class has more images.",
        )
    return found


def _of_size(settings: GroupSettings, ipc: int) -> GroupSettings:
    return settings.model_copy(update={"ipc": ipc})


def draw_mixture(name: str, mixture: ClassMixture, settings: GroupSettings, candidates: Mapping[str, int]) -> Tensor:
    """Return the group [K, D] (float64) of one class: a group of its share of images from each mode, one after the other.

    Args:
        name: class name, which seeds the draws.
        mixture: the modes of the class.
        settings: how to choose.
        candidates: what :func:`search_mixtures` found.

    Raises:
        DataError: at temperature 0 the class has fewer modes than images.
    """
    groups = []
    for index, (mode, share) in enumerate(zip(mixture.modes, _shares(name, mixture, settings), strict=True)):
        if share:
            named = mode_name(name, index)
            groups.append(draw_group(named, mode, _of_size(settings, share), candidates.get(named)))
    return torch.cat(groups)


def searches(settings: GroupSettings) -> bool:
    """Return whether groups are found by a search: where it is asked for, and for ``exact`` or ``stratified`` groups of one image.

    Never at temperature 0, where all groups are one.
    """
    if not settings.temperature:
        return False
    return settings.strategy == "search" or (settings.strategy in ("exact", "stratified") and settings.ipc == 1)


def _standardised(k: int, dimensions: int, exact_std: str, generator: torch.Generator) -> Tensor:
    """Draw [K, D] with mean 0 and std 1 in every dimension; for even K in mirrored pairs, which have no skewness either."""
    degrees = k - 1 if exact_std == "unbiased" else k
    if k % 2 == 0:
        half = torch.randn(k // 2, dimensions, generator=generator, dtype=torch.float64)
        half *= (degrees / 2 / half.square().sum(dim=0)).sqrt()
        return torch.stack([half, -half], dim=1).flatten(0, 1)
    noise = torch.randn(k, dimensions, generator=generator, dtype=torch.float64)
    noise -= noise.mean(dim=0)
    return noise.mul_((degrees / noise.square().sum(dim=0)).sqrt())


def _stratified(k: int, dimensions: int, seed: int) -> Tensor:
    """Draw [K, D] with one value from each K-th of the standard normal in every dimension (Latin hypercube, McKay et al. 1979)."""
    from scipy.special import ndtri
    from scipy.stats.qmc import LatinHypercube

    uniform = LatinHypercube(dimensions, rng=np.random.default_rng(seed)).random(k)
    return torch.from_numpy(ndtri(uniform))
