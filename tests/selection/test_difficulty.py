from dataclasses import replace

import pytest
import torch
from torch import Tensor

from d3hr.errors import NumericalError, SettingsError
from d3hr.selection import difficulty
from d3hr.selection.difficulty import denoising_loss
from tests.conftest import GaussianPrior, untrained_prior


def test_the_loss_of_a_prior_that_knows_one_image(gaussian_prior: GaussianPrior) -> None:
    """Where all data is one image m, what a noisy latent is more than sqrt(a) m counts as noise. Of an image x, that is too much by
    sqrt(a / (1 - a)) (x - m) whatever the noise, so that the loss is a / (1 - a) times the mean square of x - m."""
    prior = replace(gaussian_prior, std=torch.zeros_like(gaussian_prior.std))
    gaps = torch.randn(5, *prior.mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = (10, 25)
    factor = sum((point.alpha / point.sigma) ** 2 for point in (prior.schedule.path(level, 50)[-1] for level in levels)) / 2
    losses = denoising_loss(prior, prior.mean + gaps, torch.zeros(5).long(), levels=levels, noises=2, seed=1)
    torch.testing.assert_close(losses, factor * gaps.square().flatten(1).mean(dim=1))


def test_images_far_from_the_mean_are_difficult(gaussian_prior: GaussianPrior) -> None:
    """Images at 0, 1, 2 ... 7 standard deviations from the mean, for the exact prior of a Gaussian."""
    latents = gaussian_prior.mean + gaussian_prior.std * torch.arange(8)[:, None, None, None]
    losses = denoising_loss(gaussian_prior, latents, torch.zeros(8).long(), levels=(10, 20, 30), noises=8, seed=0)
    assert losses.argsort().tolist() == list(range(8))


def test_losses_depend_on_the_image_the_class_and_the_seed_but_not_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = untrained_prior(("a", "b"))
    latents = torch.randn(5, *prior.latent_shape, generator=torch.Generator().manual_seed(0))

    def losses(chosen: Tensor, label: int = 0, seed: int = 0) -> Tensor:
        return denoising_loss(prior, chosen, torch.full((len(chosen),), label), levels=(5, 30), noises=2, seed=seed)

    whole = losses(latents)
    assert len(set(whole.tolist())) == 5
    assert not losses(latents, label=1).equal(whole)
    assert not losses(latents, seed=1).equal(whole)
    monkeypatch.setattr(difficulty, "BATCH", 2)
    torch.testing.assert_close(losses(latents.flip(0)).flip(0), whole, rtol=1e-5, atol=0)


def test_a_loss_that_cannot_be_measured_is_an_error(gaussian_prior: GaussianPrior) -> None:
    latents = gaussian_prior.mean[None]
    with pytest.raises(SettingsError, match="not on the grid"):
        denoising_loss(gaussian_prior, latents, torch.zeros(1).long(), levels=(50,), noises=1, seed=0)
    with pytest.raises(NumericalError, match="The denoising loss left"):
        denoising_loss(gaussian_prior, latents / 0, torch.zeros(1).long(), levels=(5,), noises=1, seed=0)
