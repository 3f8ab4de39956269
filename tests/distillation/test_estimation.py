import math

import pytest
import torch
from torch import Tensor

from d3hr.distillation.estimation import ClassEstimate, StandardError, images_needed


def estimate(latents: Tensor, population: int, batch: int) -> ClassEstimate:
    current = ClassEstimate.empty(latents.shape[1], population)
    for part in latents.split(batch):
        current = current.update(part, full=len(part) == batch)
    return current


def test_errors_of_gaussian_latents() -> None:
    """n = 640 of many: 1/sqrt(n) for the mean; sigma's, from B = 10 batches of b = 64,
    is 1/sqrt(2 B (b - 1)): Var s_b^2 is 2 sigma^4/(b - 1)."""
    latents = 3 * torch.randn(640, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    error = estimate(latents, 10**9, 64).standard_error
    assert error.mean == pytest.approx(1 / math.sqrt(640), rel=1e-6)
    assert error.std == pytest.approx(1 / math.sqrt(2 * 10 * 63), rel=0.02)


def test_heavy_tails_are_measured_not_assumed() -> None:
    """A latent that is +-1 or, one time in ten, +-5 has kurtosis (0.9 + 0.1 x 625)/(0.9 + 2.5)^2 = 5.48, not 3: sigma's error is
    sqrt((kurtosis - 1) / (4 n)) but for terms in 1/b."""
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (6400, 2000), generator=generator).double() * 2 - 1
    latents = signs * torch.where(torch.rand(6400, 2000, generator=generator) < 0.1, 5.0, 1.0)
    kurtosis = (0.9 + 0.1 * 625) / (0.9 + 0.1 * 25) ** 2
    assert estimate(latents, 10**9, 64).standard_error.std == pytest.approx(math.sqrt((kurtosis - 1) / (4 * 6400)), rel=0.03)


def test_the_stated_error_is_the_error() -> None:
    """Over 300 random halves of one class of 400 latents, the scatter of mean and std about the class's own is what is stated."""
    generator = torch.Generator().manual_seed(2)
    whole = torch.rand(400, 50, generator=generator, dtype=torch.float64)
    gaps, stated = [], []
    for _ in range(300):
        sample = whole[torch.randperm(400, generator=generator)[:192]]
        estimated = estimate(sample, 400, 32)
        gap = [(estimated.gaussian.mean - whole.mean(0)) / whole.std(0), estimated.gaussian.std / whole.std(0) - 1]
        gaps.append([float(error.square().mean()) for error in gap])
        stated.append([estimated.standard_error.mean**2, estimated.standard_error.std**2])
    observed, expected = torch.tensor(gaps).mean(0).sqrt(), torch.tensor(stated).mean(0).sqrt()
    torch.testing.assert_close(observed, expected, rtol=0.06, atol=0)


def test_all_images_leave_no_error() -> None:
    latents = torch.randn(100, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert estimate(latents, 100, 25).standard_error == StandardError(0.0, 0.0)


def test_a_dimension_without_spread_has_no_error() -> None:
    error = estimate(torch.zeros(64, 3, dtype=torch.float64), 1000, 16).standard_error
    assert error.std == 0
    assert error.within(0.2) and not error.within(0.1)


@pytest.mark.parametrize("population, tolerance", [(1300, 0.02), (5000, 0.02), (100, 0.05), (10**7, 0.02)])
def test_images_needed_are_the_fewest(population: int, tolerance: float) -> None:
    """One image fewer would leave the mean's error above the tolerance: 2,500 of very many at 0.02, 855 of 1,300."""
    n = images_needed(population, most=None, tolerance=tolerance)
    errors = [math.sqrt((1 - m / population) / m) for m in (n - 1, n)]
    assert errors[1] <= tolerance * (1 + 1e-9) and errors[0] > tolerance
    assert images_needed(population, most=50, tolerance=tolerance) == 50
    assert images_needed(population, most=None, tolerance=None) == population
