"""What every family of priors must keep. A family that is added gets an entry in ``FAMILIES`` of tests/prior/small_priors.py."""

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from d3hr import Prior
from d3hr.distillation.ddim import denoise, invert
from d3hr.distillation.settings import Solver
from d3hr.errors import SettingsError
from d3hr.prior.conditions import Condition
from d3hr.prior.families.registry import FAMILIES
from d3hr.prior.schedules.schedule import Point
from tests.prior.small_priors import CLASSES, SMALL_PRIORS, SmallPrior


@pytest.fixture(scope="module", params=SMALL_PRIORS, ids=lambda small: small.name)
def small(request: pytest.FixtureRequest) -> SmallPrior:
    each: SmallPrior = request.param
    return each


@pytest.fixture(scope="module")
def prior(small: SmallPrior, tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """A prior as people have it, opened."""
    return small.write(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="module")
def of_class(prior: Prior) -> Condition:
    return prior.conditions(CLASSES)["bee"]


def noisy(prior: Prior, count: int = 2) -> Tensor:
    return torch.randn(count, *prior.latent_shape, generator=torch.Generator().manual_seed(0))


def middle(prior: Prior) -> Point:
    return prior.schedule.points(50)[25]


def round_trip(prior: Prior, of_class: Condition, steps: int, solver: Solver = "ddim") -> float:
    """Distance (root mean square) of latents from where they come back to, by way of the same level of noise on every grid."""
    z, level = 0.5 * noisy(prior), steps * 6 // 10
    up = invert(prior, z, of_class, level=level, steps=steps, guidance_scale=1.0, solver=solver)
    down = denoise(prior, up, of_class, level=level, steps=steps, guidance_scale=1.0)
    return float((down - z).square().mean().sqrt())


def test_every_family_is_here() -> None:
    tested = {small.family for small in SMALL_PRIORS}
    assert set(FAMILIES) == tested


def test_the_family_is_found_from_the_files(prior: Prior, small: SmallPrior) -> None:
    assert type(prior.denoiser) is small.family
    assert prior.image_size == 8


def test_the_round_trip_is_of_first_order(prior: Prior, of_class: Condition) -> None:
    """Twice the steps, half the error."""
    errors = [round_trip(prior, of_class, steps) for steps in (12, 24, 48)]
    assert errors[-1] > 1e-5
    assert [a / b for a, b in itertools.pairwise(errors)] == pytest.approx([2, 2], rel=0.25)


def test_fixed_point_comes_back(prior: Prior, of_class: Condition) -> None:
    assert round_trip(prior, of_class, 5, "fixed_point") < 1e-5 < round_trip(prior, of_class, 5)


def test_one_condition_per_class(prior: Prior, small: SmallPrior) -> None:
    conditions = prior.conditions(CLASSES)
    assert list(conditions) == list(CLASSES)
    slopes = [prior.slope(noisy(prior), middle(prior), condition) for condition in conditions.values()]
    assert torch.equal(slopes[0], slopes[1]) == (not small.conditional)
    example = prior.slope(noisy(prior), middle(prior), prior.denoiser.example)
    assert example.shape == slopes[0].shape == (2, *prior.latent_shape)


def test_guidance(prior: Prior, of_class: Condition, small: SmallPrior) -> None:
    """q_null + g (q_class - q_null); nothing where no class is known; refused where only the null condition is missing."""
    z, point = noisy(prior), middle(prior)
    plain = prior.slope(z, point, of_class)
    assert (of_class.null is not None) == small.guided
    if of_class.null is not None:
        null = prior.slope(z, point, Condition(of_class.key, of_class.null))
        assert not torch.allclose(null, plain, atol=1e-4)
        torch.testing.assert_close(prior.slope(z, point, of_class, 3.0), null + 3 * (plain - null), atol=1e-5, rtol=1e-4)
    elif small.conditional:
        with pytest.raises(SettingsError, match="--denoising-guidance 1"):
            prior.slope(z, point, of_class, 3.0)
    else:
        assert torch.equal(prior.slope(z, point, of_class, 3.0), plain)


def test_the_same_again(prior: Prior, of_class: Condition) -> None:
    z, point = noisy(prior), middle(prior)
    assert torch.equal(prior.slope(z, point, of_class), prior.slope(z, point, of_class))


def test_images_of_a_batch_do_not_meet(prior: Prior, of_class: Condition) -> None:
    z, point = noisy(prior, 5), middle(prior)
    alone = torch.cat([prior.slope(one, point, of_class) for one in z.split(1)])
    torch.testing.assert_close(prior.slope(z, point, of_class), alone, rtol=1e-4, atol=1e-5)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(prior.encode(images)[1:2], prior.encode(images[1:2]), rtol=1e-4, atol=1e-5)


def test_images_and_latents(prior: Prior) -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = prior.encode(images)
    assert latents.shape == (2, *prior.latent_shape)
    decoded = prior.decode(3 * latents)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1
    with pytest.raises(SettingsError, match=r"\[N, 3, 8, 8\]"):
        prior.encode(torch.zeros(1, 3, 16, 16))


def test_the_precision_of_latents_is_kept(prior: Prior, of_class: Condition) -> None:
    assert prior.slope(noisy(prior).double(), middle(prior), of_class).dtype == torch.float64


def test_a_fingerprint_is_that_of_weights_and_schedule(prior: Prior, small: SmallPrior, tmp_path: Path) -> None:
    again = small.write(tmp_path)
    assert again.fingerprint == prior.fingerprint
    schedule = Prior(again.denoiser, again.vae, {**again.scheduler_config, **small.other_schedule})
    with torch.no_grad():
        next(again.network.parameters()).view(-1)[0] += 1
    weights = Prior(again.denoiser, again.vae, again.scheduler_config)
    assert len({prior.fingerprint, schedule.fingerprint, weights.fingerprint}) == 3


def test_it_travels_to_other_processes(prior: Prior, of_class: Condition) -> None:
    assert len(pickle.dumps(prior)) < 2_000
    there, condition = pickle.loads(pickle.dumps((prior, of_class)))
    assert there.fingerprint == prior.fingerprint
    assert torch.equal(there.slope(noisy(prior), middle(prior), condition), prior.slope(noisy(prior), middle(prior), of_class))


def test_it_is_saved_and_opened_again(prior: Prior, of_class: Condition, small: SmallPrior, tmp_path: Path) -> None:
    prior.save_pretrained(tmp_path / "copy")
    copy = Prior.from_pretrained(tmp_path / "copy")
    assert type(copy.denoiser) is small.family
    assert copy.fingerprint == prior.fingerprint
    assert copy.class_names == prior.class_names
    z, point = noisy(prior), middle(prior)
    assert torch.equal(copy.slope(z, point, copy.conditions(CLASSES)["bee"]), prior.slope(z, point, of_class))
    copy.save_pretrained(tmp_path / "again")
    assert Prior.from_pretrained(tmp_path / "again").fingerprint == prior.fingerprint


def test_half_precision(prior: Prior, of_class: Condition) -> None:
    assert prior.source
    half = Prior.from_pretrained(prior.source, dtype=torch.bfloat16, **vars(prior.variant))
    exact = prior.slope(noisy(prior), middle(prior), of_class)
    rough = half.slope(noisy(prior), middle(prior), half.conditions(CLASSES)["bee"])
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).norm() / exact.norm()) < 0.05


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' Euler scheduler
def test_diffusers_draws_from_it_before_and_after(prior: Prior, small: SmallPrior, tmp_path: Path) -> None:
    """Its own pipeline opens the folder, and opens what d3hr writes of it: the same images."""
    if small.draw is None:
        pytest.skip("diffusers has no pipeline of this family")
    draw: Callable[[str], np.ndarray] = small.draw
    before = draw(str(prior.source))
    assert before.shape == (1, 8, 8, prior.latent_shape[0] if small.pixels else 3)
    assert np.isfinite(before).all()
    prior.save_pretrained(tmp_path / "copy")
    np.testing.assert_array_equal(draw(str(tmp_path / "copy")), before)
