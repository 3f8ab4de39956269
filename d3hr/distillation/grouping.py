"""Group sampling: chooses K latents of a class that together represent its Gaussian (D3HR, arXiv 2505.18399).

Strategies: ``search`` takes the best of M random groups by :func:`group_score`, found in one pool for all classes
(:mod:`d3hr.distillation.pool`); ``exact`` makes a group whose moments are those of the Gaussian; ``random`` draws one group. A class of
several modes divides the images of its group between them, and each mode draws its part by the strategy.

Legend: M candidate groups, K images in a group, D dimensions, r loadings.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Unpack

import torch
from pydantic import ValidationError
from torch import Tensor

from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.mixture import ClassMixture, largest_remainders
from d3hr.distillation.pool import SearchOptions, class_variances, draw_candidate, search_pool
from d3hr.distillation.presets import GroupOptions
from d3hr.distillation.settings import ExactStd, GroupSettings, Skewness
from d3hr.errors import DataError, settings_error
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for


def group_score(
    groups: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5),
    skewness: Skewness = "per_dimension",
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


def skewness_norm(groups: Tensor, skewness: Skewness) -> Tensor:
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
    progress: Progress = SILENT,
    memory_budget: int | None = None,
    device: str = "cpu",
    **options: Unpack[GroupOptions],
) -> dict[str, Tensor]:
    """Return a group of latents [K, D] (float64) for each class.

    Args:
        gaussians: the Gaussian of each class, all of the same D.
        ipc: images per class, K.
        progress: where to report a search.
        memory_budget: bytes that a search may hold, by default 256 MiB; the groups do not depend on it.
        device: where a search scores its candidates; all noise is drawn on the CPU.
        options: settings such as ``strategy``, ``num_candidates`` (M of a search) and ``seed``:
            :class:`~d3hr.distillation.settings.GroupSettings` says what each means. At K = 1 ``exact`` searches, as the mean itself
            denoises to a flat picture. A class's group depends on the seed and the class's name, not on the other classes.

    Raises:
        SettingsError: a setting is unknown or out of range.
        DataError: the Gaussians differ in D.
    """
    try:
        resolved = GroupSettings(ipc=ipc, **options)
    except ValidationError as error:
        raise settings_error(error) from None
    candidates = search_candidates(gaussians, resolved, progress=progress, memory_budget=memory_budget, device=device)
    return {name: draw_group(name, gaussian, resolved, candidates.get(name)) for name, gaussian in gaussians.items()}


def needs_search(settings: GroupSettings) -> bool:
    """Return whether groups are searched: by ``search``, and by ``exact`` for one image, but not at temperature 0, where all are one."""
    searches = settings.strategy == "search" or (settings.strategy == "exact" and settings.ipc == 1)
    return searches and settings.temperature > 0


def search_candidates(gaussians: Mapping[str, ClassGaussian], settings: GroupSettings, **options: Unpack[SearchOptions]) -> dict[str, int]:
    """Return the index of each class's best candidate by :func:`~d3hr.distillation.pool.search_pool`; empty if nothing is searched."""
    if not needs_search(settings):
        return {}
    variances = {name: class_variances(name, gaussian, settings) for name, gaussian in gaussians.items()}
    return search_pool(variances, settings, **options)


def draw_group(name: str, gaussian: ClassGaussian, settings: GroupSettings, candidate: int | None = None) -> Tensor:
    """Return the group [K, D] (float64) of a class or mode, whose noise follows from its name.

    It is the ``candidate`` of that index in the pool, where the strategy searches, or what the strategy draws; a search without a candidate
    is one random draw, as is ``exact`` for one image.
    """
    k, coordinates = settings.ipc, len(gaussian.coordinate_std)
    if not settings.temperature:
        return gaussian.mean.double().repeat(k, 1)
    generator = generator_for(settings.seed, "group", name if settings.seed_by_class else "")
    if candidate is not None:
        noise = draw_candidate(candidate, name, settings, coordinates).double()
    elif settings.strategy == "exact" and k > 1:
        noise = exact_noise(k, coordinates, settings.exact_std, generator)
    else:
        noise = torch.randn(k, coordinates, generator=generator, dtype=torch.float64)
    return gaussian.from_standard_normal(noise, settings.temperature)


def exact_noise(k: int, dimensions: int, exact_std: ExactStd, generator: torch.Generator) -> Tensor:
    """Draw [K, D] (float64) with mean 0 and std 1 in every dimension, K at least 2; for even K in mirrored pairs, which have no skewness.

    ``unbiased`` is the std that the group score measures; ``population`` keeps the mean squared norm of a random draw, of which
    ``unbiased`` leaves (K-1)/K.
    """
    degrees = k - 1 if exact_std == "unbiased" else k
    if k % 2 == 0:
        half = torch.randn(k // 2, dimensions, generator=generator, dtype=torch.float64)
        half *= (degrees / 2 / half.square().sum(dim=0)).sqrt()
        return torch.stack([half, -half], dim=1).flatten(0, 1)
    noise = torch.randn(k, dimensions, generator=generator, dtype=torch.float64)
    noise -= noise.mean(dim=0)
    return noise.mul_((degrees / noise.square().sum(dim=0)).sqrt())


def mode_name(class_name: str, index: int) -> str:
    """Return the name under which a mode of a class draws; the first mode's is the class's own."""
    return f"{class_name}\0{index}" if index else class_name


def search_mixtures(
    mixtures: Mapping[str, ClassMixture],
    settings: GroupSettings,
    class_names: Sequence[str] | None = None,
    **options: Unpack[SearchOptions],
) -> dict[str, int]:
    """Return the index of each mode's best candidate, by :func:`mode_name`, in the pool of groups of as many images as the mode gets.

    Those of some classes, by default of all. The mixtures, all of the same D, are looked up one after the other.

    Raises:
        DataError: the Gaussians differ in D, no latent of a class was seen, or at temperature 0 a class has fewer modes than images.
    """
    variances: dict[int, dict[str, Tensor]] = {}
    for class_name in mixtures if class_names is None else class_names:
        for name, gaussian, mode_settings in _mode_draws(class_name, mixtures[class_name], settings):
            if needs_search(mode_settings):
                variances.setdefault(mode_settings.ipc, {})[name] = class_variances(name, gaussian, mode_settings)
    candidates: dict[str, int] = {}
    for ipc, of_size in sorted(variances.items()):
        candidates |= search_pool(of_size, settings.model_copy(update={"ipc": ipc}), **options)
    return candidates


def draw_mixture(class_name: str, mixture: ClassMixture, settings: GroupSettings, candidates: Mapping[str, int]) -> Tensor:
    """Return the group [K, D] (float64) of one class: a group of its share of the images from each mode, one after the other."""
    draws = _mode_draws(class_name, mixture, settings)
    return torch.cat([draw_group(name, gaussian, mode_settings, candidates.get(name)) for name, gaussian, mode_settings in draws])


def _mode_draws(class_name: str, mixture: ClassMixture, settings: GroupSettings) -> Iterator[tuple[str, ClassGaussian, GroupSettings]]:
    """Yield name, Gaussian and settings (with its own K) of each mode that gets images.

    They are allocated by weight, but at temperature 0, where a mode has only its mean to give, one to each of the top modes.
    """
    if not mixture.count:
        raise DataError(
            f"Class {class_name!r} has no statistics to draw from.",
            found="no latent in any mode",
            hint="distil it again: 'd3hr distill'.",
        )
    images = largest_remainders(mixture.counts, settings.ipc) if settings.temperature else mixture.top_modes(settings.ipc)
    if sum(images) < settings.ipc:
        raise DataError(
            f"Class {class_name!r} has too few modes for a set without copies: at temperature 0 each gives its mean, and nothing else.",
            found=f"{sum(images)} modes with images for {settings.ipc} images",
            hint="give --temperature above 0, or more --modes where the class has more images.",
        )
    for index, (mode, count) in enumerate(zip(mixture.modes, images, strict=True)):
        if count:
            yield mode_name(class_name, index), mode, settings.model_copy(update={"ipc": count})
