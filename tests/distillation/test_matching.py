import pytest
import torch

from d3hr.distillation.inversion import invert
from d3hr.distillation.matching import ClassGaussian
from tests.conftest import GaussianPrior


def test_streaming_equals_the_whole() -> None:
    """Batches in any order and merged in any order give the mean and unbiased std of all latents; float32 far from zero is no harm."""
    x = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8) + 1e4
    whole = x.double()
    parts = list(x.split([1, 2, 300, 97, 600]))
    forward = backward = ClassGaussian.empty(7)
    for part in parts:
        forward = forward.update(part)
    for part in reversed(parts):
        backward = backward.merge(ClassGaussian.empty(7).update(part))
    for gaussian in (forward, backward):
        assert gaussian.count == 1000
        torch.testing.assert_close(gaussian.mean, whole.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(gaussian.std, whole.std(0), rtol=1e-6, atol=0)


def test_update_returns_a_new_gaussian() -> None:
    empty = ClassGaussian.empty(2)
    empty.update(torch.ones(3, 2))
    assert empty.count == 0


def test_one_latent_has_no_spread() -> None:
    gaussian = ClassGaussian.empty(3).update(torch.tensor([[1.0, 2.0, 3.0]]))
    assert gaussian.mean.tolist() == [1, 2, 3]
    assert gaussian.std.tolist() == [0, 0, 0]
    assert gaussian.merge(ClassGaussian.empty(3)) is gaussian


def test_matching_finds_the_known_gaussian(gaussian_prior: GaussianPrior) -> None:
    """Data N(m, s^2) at timestep 620 is N(sqrt(a) m, q^2) with q = s sqrt(a s^2 + 1 - a) / sqrt(a0 s^2 + 1 - a0), because clean latents
    are taken to stand at a0. Of 20,000 draws the mean has standard error q / sqrt(n), the std q / sqrt(2n); 500 steps leave 1 %."""
    prior, n = gaussian_prior, 20_000
    noise = torch.randn(n, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gaussian = ClassGaussian.empty(16)
    for batch in (prior.mean + prior.std * noise).split(4096):
        gaussian = gaussian.update(invert(prior, batch, torch.zeros(len(batch)), level=310, steps=500, guidance_scale=1.0).flatten(1))
    expected_mean = prior.transported(prior.mean, 620).flatten()
    expected_std = (prior.transported(prior.mean + prior.std, 620) - prior.transported(prior.mean, 620)).flatten()
    assert float(((gaussian.mean - expected_mean) / expected_std).abs().max()) < 4 / n**0.5 + 0.01
    assert gaussian.std.numpy() == pytest.approx(expected_std.numpy(), rel=4 / (2 * n) ** 0.5 + 0.01)
