import numpy as np
import pytest
import torch

from d3hr.distillation.inversion import ddim_step, denoise, invert
from d3hr.errors import SettingsError
from tests.conftest import GaussianPrior

LABELS = torch.zeros(3, dtype=torch.int64)


def start(prior: GaussianPrior) -> torch.Tensor:
    noise = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return prior.mean + prior.std * noise


def error(prior: GaussianPrior, steps: int) -> float:
    """Distance from the known latent at timestep 600 with a grid of ``steps``."""
    z = start(prior)
    reached = invert(prior, z, LABELS, level=600 * steps // 1000, steps=steps, guidance_scale=1.0)
    return float((reached - prior.transported(z, 600)).abs().max())


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


def test_fixed_point_round_trip_of_a_network(digits_prior, digits) -> None:
    """The same with a transformer and guidance, whose arithmetic is float32."""
    images, labels = digits.gather(torch.arange(0, 1000, 200))
    z = digits_prior.encode(images)
    top = invert(digits_prior, z, labels, level=31, guidance_scale=1.5, solver="fixed_point")
    assert float((denoise(digits_prior, top, labels, level=31, guidance_scale=1.5) - z).abs().max()) < 1e-4


def test_level_zero_is_where_clean_latents_stand(gaussian_prior: GaussianPrior) -> None:
    z = start(gaussian_prior)
    assert torch.equal(invert(gaussian_prior, z, LABELS, level=0), z)
    assert torch.equal(denoise(gaussian_prior, z, LABELS, level=0), z)


@pytest.mark.parametrize("level", [-1, 50])
def test_level_off_the_grid_is_refused(gaussian_prior: GaussianPrior, level: int) -> None:
    with pytest.raises(SettingsError, match="0 to 49"):
        invert(gaussian_prior, start(gaussian_prior), LABELS, level=level)


def test_unknown_solver_is_refused(gaussian_prior: GaussianPrior) -> None:
    with pytest.raises(SettingsError, match="fixed_point"):
        invert(gaussian_prior, start(gaussian_prior), LABELS, level=1, solver="heun")
