import re
from pathlib import Path

import pytest
import torch

from d3hr.distillation.ddim import invert
from d3hr.distillation.gaussian import ClassGaussian, leading_directions
from d3hr.distillation.mixture import nearest_centres
from d3hr.prior.autoencoder import psnr_db
from tests.conftest import GaussianPrior, MetalTensor

SOURCES = sorted((Path(__file__).parents[2] / "d3hr").rglob("*.py"))
_ON_THE_DEVICE = re.compile(
    r"""(double\(\)|float64\))\.(cpu\(\)|to\(["']cpu)|\.to\((torch\.device\()?["']cpu["']\)?, (dtype=)?torch\.float64"""
)
"""A cast to float64 before, or in one call with, the move to the CPU: PyTorch then casts on the device."""


def test_nothing_is_cast_to_float64_before_it_is_on_the_cpu() -> None:
    wrong = ['x.to("cpu", torch.float64)', "x.double().cpu()", "x.to(torch.float64).cpu()", 'x.to(torch.device("cpu"), torch.float64)']
    assert all(_ON_THE_DEVICE.search(line) for line in wrong)
    assert not _ON_THE_DEVICE.search("x.detach().cpu().double()")
    assert [file.name for file in SOURCES if _ON_THE_DEVICE.search(file.read_text(encoding="utf-8"))] == []


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
    are taken to be at a0. Of 20,000 draws the mean has standard error q / sqrt(n), the std q / sqrt(2n); 500 steps leave 1 %."""
    prior, n = gaussian_prior, 20_000
    noise = torch.randn(n, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gaussian = ClassGaussian.empty(16)
    for batch in (prior.mean + prior.std * noise).split(4096):
        gaussian = gaussian.update(invert(prior, batch, torch.zeros(len(batch)), level=310, steps=500, guidance_scale=1.0).flatten(1))
    expected_mean = prior.transported(prior.mean, 620).flatten()
    expected_std = (prior.transported(prior.mean + prior.std, 620) - prior.transported(prior.mean, 620)).flatten()
    assert float(((gaussian.mean - expected_mean) / expected_std).abs().max()) < 4 / n**0.5 + 0.01
    assert gaussian.std.numpy() == pytest.approx(expected_std.numpy(), rel=4 / (2 * n) ** 0.5 + 0.01)


def decaying(count: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    """Latents whose directions, turned at random, vary less and less, far from zero."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64))[0]
    scale = 0.7 ** torch.arange(dimensions, dtype=torch.float64)
    return (torch.randn(count, dimensions, generator=generator, dtype=torch.float64) * scale) @ turn + 5


def covariance(gaussian: ClassGaussian) -> torch.Tensor:
    """L^T L + diag(psi)."""
    assert gaussian.loadings is not None
    return gaussian.loadings.T @ gaussian.loadings + torch.diag(gaussian.residual_std**2)


def seen(latents: torch.Tensor, sizes: list[int], rank: int) -> ClassGaussian:
    """The Gaussian of latents that came in two streams of batches, which were then merged."""
    streams = [ClassGaussian.empty(latents.shape[1], rank)] * 2
    for index, part in enumerate(latents.split(sizes)):
        streams[index % 2] = streams[index % 2].update(part)
    return streams[0].merge(streams[1])


@pytest.mark.parametrize("rank", [12, 40])
def test_a_full_rank_keeps_the_whole_covariance(rank: int) -> None:
    """In whatever parts the latents come, of more of them than dimensions or fewer; there are never more directions than dimensions."""
    latents = decaying(80, 12)
    gaussian = seen(latents, [1, 30, 2, 40, 7], rank)
    assert gaussian.rank == 12
    for each in (gaussian, gaussian.truncate_rank()):
        torch.testing.assert_close(covariance(each), latents.T.cov(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(each.mean, latents.mean(0))
    few = seen(latents[:5], [2, 3], rank).truncate_rank()
    torch.testing.assert_close(covariance(few), latents[:5].T.cov(), rtol=1e-9, atol=1e-12)
    assert few.loadings is not None and (few.loadings[4:].abs() < 1e-12).all()


def test_a_low_rank_keeps_the_directions_of_most_variance() -> None:
    """Nearly as much of the variance as the best three directions hold, at right angles, the longest first; every dimension's variance is
    what it was; and no more rows are held than twice the rank."""
    latents = decaying(600, 10)
    gaussian = seen(latents, [50] * 12, 3)
    loadings = gaussian.truncate_rank().loadings
    assert gaussian.loadings is not None and loadings is not None
    assert len(gaussian.loadings) <= 6 and loadings.shape == (3, 10)
    torch.testing.assert_close(covariance(gaussian.truncate_rank()).diag(), latents.var(0), rtol=1e-9, atol=0)
    best = torch.linalg.eigvalsh(latents.T.cov())[-3:].flip(0)
    lengths = loadings.square().sum(dim=1)
    torch.testing.assert_close(lengths, best, rtol=1e-2, atol=0)
    torch.testing.assert_close(loadings @ loadings.T, torch.diag(lengths), rtol=0, atol=1e-9)


def test_directions_have_one_sign() -> None:
    """Of two directions that differ in sign alone, the one whose largest component is positive."""
    rows = decaying(20, 6) - 5
    for flipped in (rows, -rows):
        leading = leading_directions(flipped, 4)
        assert (leading.gather(1, leading.abs().argmax(dim=1, keepdim=True)) > 0).all()
        torch.testing.assert_close(leading, leading_directions(rows, 4))


def test_latents_from_standard_normal_coordinates_have_the_covariance() -> None:
    """Of 40,000 draws the covariance is that of the Gaussian, within four standard errors of the largest variance; at temperature one half
    it is a quarter; without a rank it is what independent dimensions have."""
    latents = decaying(300, 6)
    n, generator = 40_000, torch.Generator().manual_seed(2)
    for rank, expected in ((2, None), (0, torch.diag(latents.var(0)))):
        gaussian = seen(latents, [100, 200], rank).truncate_rank()
        expected = covariance(gaussian) if expected is None else expected
        noise = torch.randn(n, len(gaussian.coordinate_std), generator=generator, dtype=torch.float64)
        whole, half = gaussian.from_standard_normal(noise.clone()), gaussian.from_standard_normal(noise.clone(), 0.5)
        assert float((whole.T.cov() - expected).abs().max()) < 4 * float(expected.max()) * (2 / n) ** 0.5
        torch.testing.assert_close(half - gaussian.mean, (whole - gaussian.mean) / 2)
        assert float(((whole.mean(0) - gaussian.mean) / gaussian.std).abs().max()) < 4 / n**0.5


def test_latents_on_a_metal_device() -> None:
    """It has no float64: latents are moved first and cast on the CPU, everywhere that float64 is needed."""
    latents = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    metal, centres = latents.as_subclass(MetalTensor), latents[:2]
    with pytest.raises(TypeError, match="float64"):
        metal.to("cpu", torch.float64)
    seen, expected = (ClassGaussian.empty(6).update(each) for each in (metal, latents))
    assert torch.equal(seen.mean, expected.mean) and torch.equal(seen.std, expected.std)
    assert torch.equal(nearest_centres(metal, centres), nearest_centres(latents, centres))
    images = latents.view(3, 2, 3, 3).tanh()
    assert psnr_db(images.as_subclass(MetalTensor), images / 2) == psnr_db(images, images / 2)
