from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.ddim import denoise, invert
from d3hr.distillation.settings import Solver
from d3hr.distillation.solvers import InexactInversion, visited_levels
from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.conditions import Condition
from d3hr.prior.model import Prior
from d3hr.prior.schedules.schedule import Point
from d3hr.prior.schedules.variance_preserving import VariancePreserving
from tests.conftest import GaussianPrior

LABELS = torch.zeros(3, dtype=torch.int64)


def start(prior: GaussianPrior) -> torch.Tensor:
    noise = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return prior.mean + prior.std * noise


def error(prior: GaussianPrior, steps: int, solver: Solver = "ddim", stride: int = 1) -> float:
    """Distance from the known latent at timestep 600 with a grid of ``steps``."""
    z = start(prior)
    reached = invert(prior, z, LABELS, level=600 * steps // 1000, steps=steps, guidance_scale=1.0, solver=solver, stride=stride)
    return float((reached - prior.transported(z, 600)).abs().max())


def ddim_step(z: torch.Tensor, eps: torch.Tensor, alpha_from: float, alpha_to: float) -> torch.Tensor:
    """The schedule's step between two signal variances."""
    start, end = (Point(0, alpha**0.5, (1 - alpha) ** 0.5) for alpha in (alpha_from, alpha_to))
    return VariancePreserving(torch.ones(1)).step(z, eps, start, end)


def test_step_between_equal_levels_changes_nothing() -> None:
    """sqrt(a) (z - sqrt(1-a) eps) / sqrt(a) + sqrt(1-a) eps = z."""
    z, eps = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(ddim_step(z, eps, 0.4, 0.4), z)


def test_step_follows_the_forward_process_when_the_noise_is_known() -> None:
    """z_a = sqrt(a) x + sqrt(1-a) e goes to z_b = sqrt(b) x + sqrt(1-b) e."""
    x, e = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(ddim_step(0.9**0.5 * x + 0.1**0.5 * e, e, 0.9, 0.3), 0.3**0.5 * x + 0.7**0.5 * e)


def test_inversion_reaches_the_known_latent_at_first_order(gaussian_prior: GaussianPrior) -> None:
    """Euler's method: halving the step halves the error, so the ratios tend to those of the steps."""
    errors = [error(gaussian_prior, steps) for steps in (50, 100, 200, 500)]
    assert errors[0] < 0.15
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert ratios == pytest.approx([2.0, 2.0, 2.5], rel=0.02)


def even_prior(prior: GaussianPrior) -> GaussianPrior:
    """The same data under a schedule whose 1,000 timesteps are evenly spread in s = sqrt((1 - a) / a), from 0.01 to 7.

    On DiT's schedule s goes with the square root of time at first, so that steps near clean latents shrink slower than the grid.
    """
    s = torch.linspace(0.01, 7, 1000, dtype=torch.float64)
    return replace(prior, schedule=replace(prior.schedule, alphas_cumprod=1 / (1 + s.square())))


def test_ddim_over_strides_estimates_ddim_at_second_order(gaussian_prior: GaussianPrior) -> None:
    """The noise between is off by its curvature times the stride squared, so twice the stride is 4 times as far from stride 1."""
    even = even_prior(gaussian_prior)
    z = start(even)

    def reached(stride: int) -> torch.Tensor:
        return invert(even, z, LABELS, level=600, steps=1000, guidance_scale=1.0, stride=stride)

    gaps = [float((reached(stride) - reached(1)).abs().max()) for stride in (5, 10, 20)]
    assert np.log2(np.array(gaps[1:]) / gaps[:-1]) == pytest.approx([2.0, 2.0], abs=0.2)


def test_ddim_over_a_stride_by_hand(gaussian_prior: GaussianPrior) -> None:
    """Levels 0, 2, 4, in x = z / sqrt(a) and s: e1 = eps(z0, t1) serves steps 1 and 2, then e3 = eps(z2, t3) serves step 3 and
    e4 = e3 + (e3 - e1) (s4 - s3) / (s3 - s1) step 4."""
    a = [float(gaussian_prior.schedule.alphas_cumprod[20 * level]) for level in range(5)]
    s = [((1 - alpha) / alpha) ** 0.5 for alpha in a]
    z0 = start(gaussian_prior)
    e1 = gaussian_prior.predict_noise(z0, 20, LABELS)
    x2 = z0 / a[0] ** 0.5 + (s[2] - s[0]) * e1
    e3 = gaussian_prior.predict_noise(a[2] ** 0.5 * x2, 60, LABELS)
    e4 = e3 + (e3 - e1) * (s[4] - s[3]) / (s[3] - s[1])
    x4 = x2 + (s[3] - s[2]) * e3 + (s[4] - s[3]) * e4
    torch.testing.assert_close(invert(gaussian_prior, z0, LABELS, level=4, stride=2), a[4] ** 0.5 * x4)


def test_clean_latents_have_the_signal_variance_of_timestep_0_on_any_grid(gaussian_prior: GaussianPrior) -> None:
    """A grid of trailing spacing begins at timesteps 19 and 39: the first step is from alphas_cumprod[0], not [19], to [39]."""
    trailing = replace(gaussian_prior, schedule=replace(gaussian_prior.schedule, spacing="trailing"))
    z0, alphas = start(trailing), trailing.schedule.alphas_cumprod
    expected = ddim_step(z0, trailing.predict_noise(z0, 39, LABELS), float(alphas[0]), float(alphas[39]))
    torch.testing.assert_close(invert(trailing, z0, LABELS, level=1), expected)


@pytest.mark.parametrize(
    ("level", "stride", "visited"),
    [(0, 3, [0]), (6, 1, [0, 1, 2, 3, 4, 5, 6]), (6, 2, [0, 2, 4, 6]), (7, 3, [0, 2, 4, 7]), (31, 8, [0, 7, 15, 23, 31]), (2, 9, [0, 2])],
)
def test_visited_levels_end_at_the_level(level: int, stride: int, visited: list[int]) -> None:
    assert visited_levels(level, stride) == visited


@pytest.mark.parametrize(("solver", "stride"), [("fixed_point", 2), ("ddim", 0), ("fixed_point", -1)])
def test_strides_that_cannot_be_taken_are_refused(gaussian_prior: GaussianPrior, solver: Solver, stride: int) -> None:
    with pytest.raises(SettingsError, match=f"stride {stride}, solver {solver}"):
        invert(gaussian_prior, start(gaussian_prior), LABELS, level=4, solver=solver, stride=stride)


def test_inversion_predicts_at_the_timestep_it_goes_to(gaussian_prior: GaussianPrior) -> None:
    """By hand, on the grid 0, 20, 40: z1 = step(z0, eps(z0, 20)), z2 = step(z1, eps(z1, 40))."""
    alpha = [float(gaussian_prior.schedule.alphas_cumprod[t]) for t in (0, 20, 40)]
    z0 = start(gaussian_prior)
    z1 = ddim_step(z0, gaussian_prior.predict_noise(z0, 20, LABELS), alpha[0], alpha[1])
    z2 = ddim_step(z1, gaussian_prior.predict_noise(z1, 40, LABELS), alpha[1], alpha[2])
    torch.testing.assert_close(invert(gaussian_prior, z0, LABELS, level=2), z2)
    back = ddim_step(z2, gaussian_prior.predict_noise(z2, 40, LABELS), alpha[2], alpha[1])
    back = ddim_step(back, gaussian_prior.predict_noise(back, 20, LABELS), alpha[1], alpha[0])
    torch.testing.assert_close(denoise(gaussian_prior, z2, LABELS, level=2), back)


def test_fixed_point_is_undone_by_denoising(gaussian_prior: GaussianPrior) -> None:
    """z_k solves z_{k-1} = denoising step of z_k, so the round trip is the identity; plain DDIM is not that exact."""
    z = start(gaussian_prior)
    exact = denoise(gaussian_prior, invert(gaussian_prior, z, LABELS, level=31, solver="fixed_point"), LABELS, level=31)
    assert float((exact - z).abs().max()) < 1e-10
    single = invert(gaussian_prior, z.float(), LABELS, level=31, solver="fixed_point")
    assert float((denoise(gaussian_prior, single, LABELS, level=31) - z).abs().max()) < 1e-5
    plain = denoise(gaussian_prior, invert(gaussian_prior, z, LABELS, level=31), LABELS, level=31)
    assert float((plain - z).abs().max()) > 1e-3


def test_fixed_point_round_trip_of_a_network(digits_prior: Prior, digits: ImageData) -> None:
    """The same with a transformer and guidance, whose arithmetic is float32."""
    images, labels = digits.gather(torch.arange(0, 1000, 200))
    z = digits_prior.encode(images)
    top = invert(digits_prior, z, labels, level=31, guidance_scale=1.5, solver="fixed_point")
    assert float((denoise(digits_prior, top, labels, level=31, guidance_scale=1.5) - z).abs().max()) < 1e-4


class WaveringPrior(GaussianPrior):
    """The exact prior, whose predictions are off by the rounding of bfloat16, up and down by turns."""

    error = torch.finfo(torch.bfloat16).eps

    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        self.error = -self.error
        return super().slope(latents, point, condition) * (1 + self.error)


def test_fixed_point_behind_a_coarse_network_ends_at_its_rounding(gaussian_prior: GaussianPrior) -> None:
    """With the rounding that the network has, the steps end there and say so; with that of the latents alone they have no end."""
    bf16 = torch.finfo(torch.bfloat16).eps
    coarse = WaveringPrior(gaussian_prior.mean, gaussian_prior.std, gaussian_prior.schedule, rounding=bf16)
    z = start(gaussian_prior)
    with pytest.warns(InexactInversion, match=r"exact to [12]e-03 a step") as said:
        top = invert(coarse, z, LABELS, level=31, solver="fixed_point", guidance_scale=1.0)
    assert len(said) == 1
    assert float((denoise(coarse, top, LABELS, level=31, guidance_scale=1.0) - z).square().mean().sqrt()) < 31 * 1e-3
    with pytest.raises(NumericalError, match="was not reached"):
        invert(replace(coarse, rounding=torch.finfo(torch.float64).eps), z, LABELS, level=31, solver="fixed_point", guidance_scale=1.0)


@pytest.mark.slow
def test_fixed_point_round_trip_of_a_network_in_bf16(digits_prior: Prior, digits: ImageData) -> None:
    """It is at least twice as exact as plain DDIM, though no longer exact to rounding of the latents."""
    assert digits_prior.source is not None
    coarse = Prior.from_pretrained(digits_prior.source, dtype=torch.bfloat16)
    images, labels = digits.gather(torch.arange(0, 1000, 200))
    z = coarse.encode(images)

    def lost(solver: Solver) -> float:
        top = invert(coarse, z, labels, level=31, guidance_scale=1.5, solver=solver)
        return float((denoise(coarse, top, labels, level=31, guidance_scale=1.5) - z).square().mean().sqrt())

    with pytest.warns(InexactInversion, match="prior in fp32 is more exact"):
        exact = lost("fixed_point")
    assert 2 * exact < lost("ddim")


def test_clean_latents_are_at_level_0(gaussian_prior: GaussianPrior) -> None:
    z = start(gaussian_prior)
    assert torch.equal(invert(gaussian_prior, z, LABELS, level=0), z)
    assert torch.equal(denoise(gaussian_prior, z, LABELS, level=0), z)


@pytest.mark.parametrize("level", [-1, 50])
def test_level_off_the_grid_is_refused(gaussian_prior: GaussianPrior, level: int) -> None:
    with pytest.raises(SettingsError, match="0 to 49"):
        invert(gaussian_prior, start(gaussian_prior), LABELS, level=level)


def test_unknown_solver_is_refused(gaussian_prior: GaussianPrior) -> None:
    with pytest.raises(SettingsError, match="fixed_point"):
        invert(gaussian_prior, start(gaussian_prior), LABELS, level=1, solver="heun")  # type: ignore[arg-type]
