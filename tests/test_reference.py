"""The package agrees with an independent float64 implementation of the whole numerical path, ``tests/reference.py``.

Legend: N latents, C h w latent axes, D = C*h*w dimensions, K latents in a group, M groups.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from d3hr import ClassGaussian, ImageData, Prior, denoise, distill, group_score, invert, load_images, select_groups
from d3hr.data.codec import to_uint8
from d3hr.distillation.pool import BLOCK_VALUES
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import DistillSettings
from d3hr.prior.families.dit import DiT
from d3hr.prior.schedules.schedule import Point
from d3hr.prior.schedules.variance_preserving import VariancePreserving
from d3hr.seeds import generator_for
from tests import reference
from tests.conftest import MakeFolder, untrained_prior

ALPHAS = reference.linear_alphas_cumprod(1000, 0.0001, 0.02)
GRID = reference.leading_grid(1000, 50)
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest accepted norm of a difference, in units of the norm of the expected value."""
NAMES = ("cat", "ant", "bee")


@dataclass(frozen=True)
class Case:
    """A network in both forms, with latents [N, C, h, w] and labels [N] to run it on."""

    priors: dict[torch.dtype, Prior]
    model: reference.DiT
    z: reference.Array
    labels: reference.Labels

    def noise(self, guidance: float) -> reference.Noise:
        return reference.guided_noise(self.model, self.labels, guidance)

    def tensors(self, dtype: torch.dtype) -> tuple[Prior, Tensor, Tensor]:
        return self.priors[dtype], torch.from_numpy(self.z).to(dtype), torch.from_numpy(self.labels)


def numpy_model(prior: Prior) -> reference.DiT:
    weights = {name: value.double().numpy() for name, value in prior.network.state_dict().items()}
    return reference.DiT(weights, dict(prior.network.config))


def learned_variance_prior() -> Prior:
    """A prior in the layout of DiT-XL/2, which has patches of 2 x 2 and a variance beside the noise, with random weights."""
    from diffusers import DiTTransformer2DModel

    names = tuple(f"class {index}" for index in range(10))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        transformer = DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=3,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=len(names),
        )
    assert all(parameter.any() for parameter in transformer.parameters())
    other = untrained_prior(names, image_size=16)
    return Prior(DiT(transformer, names), other.vae, other.scheduler_config)


@pytest.fixture(scope="module", params=["one pixel a patch", "learned variance"])
def case(request: pytest.FixtureRequest) -> Case:
    single = learned_variance_prior() if request.param == "learned variance" else untrained_prior(NAMES)
    double = Prior(DiT(copy.deepcopy(single.network).double(), single.class_names), single.vae, single.scheduler_config)
    z = np.random.default_rng(0).standard_normal((3, *single.latent_shape))
    return Case({torch.float32: single, torch.float64: double}, numpy_model(single), z, np.array([0, 2, 1]))


def gap(actual: Tensor, expected: reference.Array) -> float:
    """Return |actual - expected| / |expected|."""
    return float(np.linalg.norm(actual.double().numpy() - expected) / np.linalg.norm(expected))


def test_the_schedule_and_its_grid(case: Case) -> None:
    schedule = case.priors[torch.float64].schedule
    assert isinstance(schedule, VariancePreserving)
    assert gap(schedule.alphas_cumprod, ALPHAS) < 1e-7  # diffusers rounds beta to float32
    assert schedule.grid(50).tolist() == GRID.tolist()


@pytest.mark.parametrize("timestep", [0, 20, 620, 999])
def test_the_sinusoids_of_a_timestep(timestep: int) -> None:
    """One unit in the last place of a frequency near 1 is 6e-8, which 999 timesteps make 6e-5 of phase."""
    from diffusers.models.embeddings import get_timestep_embedding

    features = get_timestep_embedding(torch.tensor([timestep]), 256, flip_sin_to_cos=True, downscale_freq_shift=1)[0]
    np.testing.assert_allclose(features.numpy(), reference.timestep_sinusoids(timestep), atol=1e-4)


def test_a_step_between_levels() -> None:
    z, eps = np.random.default_rng(0).standard_normal((2, 3, 4))
    start, end = (Point(0, ALPHAS[t] ** 0.5, (1 - ALPHAS[t]) ** 0.5) for t in (600, 620))
    actual = VariancePreserving(torch.ones(1)).step(torch.from_numpy(z), torch.from_numpy(eps), start, end)
    assert gap(actual, reference.ddim_step(z, eps, ALPHAS[600], ALPHAS[620])) < 1e-14


@pytest.mark.parametrize("guidance", [0, 1, 1.5, 4])
def test_one_noise_prediction(case: Case, guidance: float) -> None:
    for timestep in (0, 20, 300, 620):
        expected = case.noise(guidance)(case.z, timestep)
        for dtype, tolerance in TOLERANCE.items():
            prior, z, labels = case.tensors(dtype)
            assert gap(prior.predict_noise(z, timestep, labels, guidance), expected) < tolerance


@pytest.mark.parametrize("guidance", [1, 4])
def test_inversion_to_level_31(case: Case, guidance: float) -> None:
    expected = reference.invert(case.noise(guidance), ALPHAS, GRID, case.z, 31)
    for dtype, tolerance in TOLERANCE.items():
        prior, z, labels = case.tensors(dtype)
        assert gap(invert(prior, z, labels, level=31, guidance_scale=guidance), expected) < tolerance


@pytest.mark.parametrize("guidance", [1, 4])
def test_denoising_from_level_31(case: Case, guidance: float) -> None:
    expected = reference.denoise(case.noise(guidance), ALPHAS, GRID, case.z, 31)
    for dtype, tolerance in TOLERANCE.items():
        prior, z, labels = case.tensors(dtype)
        assert gap(denoise(prior, z, labels, level=31, guidance_scale=guidance), expected) < tolerance


@pytest.mark.slow
def test_the_fixed_point_and_back(case: Case) -> None:
    """Six steps of a coarse grid, to timestep 600: each takes some twenty predictions."""
    prior, z, labels = case.tensors(torch.float64)
    noise, grid = case.noise(1.5), reference.leading_grid(1000, 10)
    inverted = invert(prior, z, labels, level=6, steps=10, guidance_scale=1.5, solver="fixed_point")
    expected = reference.invert_exactly(noise, ALPHAS, grid, case.z, 6)
    assert gap(inverted, expected) < 1e-6
    assert gap(torch.from_numpy(reference.denoise(noise, ALPHAS, grid, expected, 6)), case.z) < 1e-10
    assert gap(denoise(prior, inverted, labels, level=6, steps=10, guidance_scale=1.5), case.z) < 1e-10


@pytest.mark.parametrize("skewness", ["per_dimension", "per_image"])
@pytest.mark.parametrize("images", [1, 2, 3, 10])
def test_group_scores(images: int, skewness: Any) -> None:
    rng = np.random.default_rng(images)
    groups, mean, std = rng.gamma(2.0, size=(6, images, 50)), rng.standard_normal(50), rng.random(50) + 0.5
    weights = (1.0, 0.7, 0.3)
    scores = group_score(*(torch.from_numpy(part) for part in (groups, mean, std)), weights=weights, skewness=skewness)
    expected = np.array([reference.group_score(group, mean, std, weights, skewness) for group in groups])
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-12)


def test_the_gaussian_of_a_class() -> None:
    latents = np.random.default_rng(0).gamma(2.0, size=(11, 7))
    gaussian = ClassGaussian.empty(7)
    for batch in np.split(latents, [4, 5, 8]):
        gaussian = gaussian.update(torch.from_numpy(batch))
    mean, std = reference.moments(latents)
    np.testing.assert_allclose(gaussian.mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(gaussian.std.numpy(), std, rtol=1e-12)
    assert gaussian.count == 11


def test_the_presets_differ_where_the_released_code_differs_from_the_paper() -> None:
    paper, released = (distill_settings(preset).model_dump() for preset in ("paper", "released"))
    assert {name: (paper[name], released[name]) for name in paper if paper[name] != released[name]} == {
        "statistics_level": (31, 30),
        "weights": ((1.0, 1.0, 0.5), (1.0, 1.0, 0.1)),
        "skewness": ("per_dimension", "per_image"),
        "seed_by_class": (True, False),
    }
    common = {
        "strategy": "search",
        "num_candidates": 1_000_000,
        "solver": "ddim",
        "steps": 50,
        "denoising_level": 31,
        "inversion_guidance": 4.0,
        "denoising_guidance": 4.0,
    }
    assert {name: paper[name] for name in common} == common


def statistics_of(images: ImageData, prior: Prior, name: str, level: int) -> tuple[reference.Array, reference.Array]:
    """Return mean and std [D] of the latents of a class at a level, inverted at guidance 4."""
    latents = torch.cat([prior.encode(batch) for batch in images.batches(name, 64)]).double().numpy()
    labels = np.full(len(latents), prior.class_names.index(name))
    inverted = reference.invert(reference.guided_noise(numpy_model(prior), labels, 4), ALPHAS, GRID, latents, level)
    return reference.moments(inverted.reshape(len(latents), -1))


def class_noise_of(name: str, settings: DistillSettings, dimensions: int) -> reference.Array:
    """Return the candidates [M, K, D] of a class: one pool, seen through a permutation of its own if classes have their own noise."""
    shape = (BLOCK_VALUES // (settings.ipc * dimensions), settings.ipc, dimensions)
    pool = torch.randn(shape, generator=generator_for(settings.seed, "pool", 0))[: settings.num_candidates].double().numpy()
    if not settings.seed_by_class:
        return pool
    return pool[:, :, torch.randperm(dimensions, generator=generator_for(settings.seed, "permutation", name)).numpy()]


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_the_best_of_a_pool(preset: str) -> None:
    """With sigmas over two orders of magnitude the winner depends on which dimension sees which part of the pool."""
    settings = distill_settings(preset, ipc=4, num_candidates=300, seed=3)
    rng = np.random.default_rng(0)
    moments = {name: (rng.standard_normal(16), 10 ** rng.uniform(-1, 1, 16)) for name in NAMES}
    gaussians = {name: ClassGaussian(torch.from_numpy(mean), torch.from_numpy(std), 9) for name, (mean, std) in moments.items()}
    chosen = {name: getattr(settings, name) for name in ("weights", "skewness", "seed_by_class")}
    selected = select_groups(gaussians, 4, num_candidates=300, seed=3, **chosen)
    for name, (mean, std) in moments.items():
        groups = mean + std * class_noise_of(name, settings, 16)
        assert gap(selected[name], reference.best_group(groups, mean, std, settings.weights, settings.skewness)) < 1e-12


@pytest.mark.parametrize(
    ("preset", "level", "weights", "skewness"),
    [("paper", 31, (1.0, 1.0, 0.5), "per_dimension"), ("released", 30, (1.0, 1.0, 0.1), "per_image")],
)
def test_a_distilled_set(
    tmp_path: Path, image_folder: MakeFolder, preset: str, level: int, weights: tuple[float, float, float], skewness: str
) -> None:
    """Statistics to 1e-5, pictures to one grey level: measured at level 31 or 30, drawn from level 31 in either case."""
    images, prior = load_images(image_folder({"ant": 5, "bee": 4, "cat": 6})), untrained_prior(NAMES)
    settings = distill_settings(preset, ipc=4, num_candidates=40, seed=7)
    distilled = distill(images, prior, tmp_path / "set", preset=preset, ipc=4, num_candidates=40, seed=7)
    noises = {name: class_noise_of(name, settings, 64) for name in images.class_names}
    for name in images.class_names:
        mean, std = statistics_of(images, prior, name, level)
        assert gap(distilled.statistics[name].mean, mean) < 1e-5
        assert gap(distilled.statistics[name].std, std) < 1e-5

        group = reference.best_group(mean + std * noises[name], mean, std, weights, skewness)
        noise = reference.guided_noise(numpy_model(prior), np.full(4, prior.class_names.index(name)), 4)
        clean = reference.denoise(noise, ALPHAS, GRID, group.reshape(4, *prior.latent_shape), 31)
        expected = to_uint8(prior.decode(torch.from_numpy(clean)))
        assert int((distilled.of_class(name).int() - expected.int()).abs().max()) <= 1
    assert np.array_equal(noises["ant"], noises["bee"]) == (preset == "released")
