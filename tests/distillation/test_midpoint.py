"""The midpoint solver on flows whose paths are known."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from d3hr.distillation.ddim import denoise, invert, num_predictions
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import Solver
from d3hr.distillation.tasks import require_grid
from d3hr.errors import SettingsError
from d3hr.prior.conditions import Condition
from d3hr.prior.networks import SCHEDULER_CONFIG
from d3hr.prior.schedules.flow_matching import FlowMatching
from d3hr.prior.schedules.schedule import Point
from d3hr.prior.schedules.variance_preserving import VariancePreserving
from tests.conftest import GaussianPrior

LABELS = torch.zeros(3, dtype=torch.int64)


@dataclass
class GaussianFlow:
    """The exact flow of data x ~ N(mean, std^2), every dimension apart.

    Of z = (1 - s) x + s e the best prediction of e - x is (s - (1 - s) std^2) (z - (1 - s) mean) / v - mean with
    v = (1 - s)^2 std^2 + s^2, and the flow keeps u = (z - (1 - s) mean) / sqrt(v) constant.
    """

    mean: Tensor
    std: Tensor
    schedule: FlowMatching = field(default_factory=FlowMatching)
    rounding: float = torch.finfo(torch.float64).eps
    sigmas: list[float] = field(default_factory=list)

    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        self.sigmas.append(point.sigma)
        variance = point.alpha**2 * self.std**2 + point.sigma**2
        apart = latents - point.alpha * self.mean
        return (point.sigma - point.alpha * self.std**2) * apart / variance - self.mean

    def transported(self, clean: Tensor, sigma: float) -> Tensor:
        """Return where the exact flow carries clean latents."""
        u = (clean - self.mean) / self.std
        return (1 - sigma) * self.mean + ((1 - sigma) ** 2 * self.std**2 + sigma**2).sqrt() * u


def flow(schedule: FlowMatching | None = None) -> GaussianFlow:
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(4, 2, 2, generator=generator, dtype=torch.float64)
    std = torch.rand(4, 2, 2, generator=generator, dtype=torch.float64) + 0.3
    return GaussianFlow(mean, std, schedule or FlowMatching())


def clean_of(prior: GaussianFlow) -> Tensor:
    noise = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return prior.mean + prior.std * noise


def errors(prior: GaussianFlow, steps: int, solver: Solver) -> tuple[float, float]:
    """Distance of inversion from the known noise, and of denoising from the known clean latents, on a grid of ``steps``."""
    clean = clean_of(prior)
    noise = prior.transported(clean, 1.0)
    up = invert(prior, clean, LABELS, level=steps - 1, steps=steps, guidance_scale=1.0, solver=solver)
    down = denoise(prior, noise, LABELS, level=steps - 1, steps=steps, guidance_scale=1.0, solver=solver)
    return float((up - noise).abs().max()), float((down - clean).abs().max())


@pytest.mark.parametrize("schedule", [FlowMatching(), FlowMatching(shift=3.0), FlowMatching(time_scale=1.0, from_noise=True)])
def test_it_is_of_second_order_up_and_down(schedule: FlowMatching) -> None:
    """Halving the step quarters the error; Euler's halves it."""
    found = np.array([errors(flow(schedule), steps, "midpoint") for steps in (129, 257, 513)])
    assert np.log2(found[:-1] / found[1:]) == pytest.approx(2.1, abs=0.2)
    eulers = np.array([errors(flow(schedule), steps, "ddim") for steps in (129, 257)])
    assert np.log2(eulers[0] / eulers[1]) == pytest.approx(1, abs=0.15)


def test_sixteen_predictions_are_more_exact_than_eulers_hundred() -> None:
    """A grid of 16 points has 15 steps, and takes one prediction more, where it starts."""
    prior = flow()
    few = errors(prior, 16, "midpoint")
    assert len(prior.sigmas) == 2 * 16 == 2 * num_predictions(15, 1, "midpoint")
    assert prior.sigmas[::16] == [0, 1]
    assert max(few) < min(errors(prior, 100, "ddim"))


def test_a_stride_is_one_step() -> None:
    """From level 0 over 4 and 8 to 12 of a grid of 50, as on a grid of a quarter of the steps; five times the calls of its denoising."""
    prior = flow()
    strided = invert(prior, clean_of(prior), LABELS, level=12, steps=49, guidance_scale=1.0, solver="midpoint", stride=4)
    assert len(prior.sigmas) == 4 == num_predictions(12, 4, "midpoint")
    coarse = invert(prior, clean_of(prior), LABELS, level=3, steps=13, guidance_scale=1.0, solver="midpoint")
    torch.testing.assert_close(strided, coarse, rtol=0, atol=1e-12)


def test_straight_paths_are_exact() -> None:
    """Data at one place: noise reaches it along a straight line, whatever the number of steps."""
    prior = flow()
    prior.std = torch.zeros_like(prior.std)
    noise = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = denoise(prior, noise, LABELS, level=3, steps=4, guidance_scale=1.0, solver="midpoint")
    torch.testing.assert_close(clean, prior.mean.expand_as(clean), rtol=0, atol=1e-12)


def test_a_round_trip_needs_it_both_ways() -> None:
    """Denoising by Euler's steps undoes no inversion of second order; the midpoint does to third."""
    prior = flow()
    top = invert(prior, clean_of(prior), LABELS, level=15, steps=16, guidance_scale=1.0, solver="midpoint")

    def lost(solver: Solver) -> float:
        back = denoise(prior, top, LABELS, level=15, steps=16, guidance_scale=1.0, solver=solver)
        return float((back - clean_of(prior)).abs().max())

    assert 10 * lost("midpoint") < lost("ddim")


def test_at_clean_latents_nothing_is_asked() -> None:
    prior = flow()
    assert torch.equal(invert(prior, clean_of(prior), LABELS, level=0, solver="midpoint"), clean_of(prior))
    assert prior.sigmas == [] and num_predictions(0, 1, "midpoint") == 0


def test_priors_with_whole_timesteps_are_refused(gaussian_prior: GaussianPrior) -> None:
    z = torch.zeros(3, 4, 2, 2, dtype=torch.float64)
    for move in (invert, denoise):
        with pytest.raises(SettingsError, match="needs a flow"):
            move(gaussian_prior, z, LABELS, level=3, solver="midpoint")
    settings = distill_settings(solver="midpoint")
    require_grid(FlowMatching(), settings)
    with pytest.raises(SettingsError, match="--solver ddim or fixed_point"):
        require_grid(VariancePreserving.from_config(SCHEDULER_CONFIG), settings)


def test_the_solver_decides_images_that_are_only_denoised() -> None:
    """Where nothing is inverted, ddim and fixed_point say nothing about a set, but midpoint does."""
    kept = [distill_settings(forward_process="forward_noise", solver=solver).as_values() for solver in ("midpoint",)]
    assert kept[0]["solver"] == "midpoint"
    with pytest.raises(SettingsError, match="has no effect"):
        distill_settings(forward_process="forward_noise", solver="fixed_point")
