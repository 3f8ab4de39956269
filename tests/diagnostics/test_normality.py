"""Tests of normality where the answer is known."""

import numpy as np
import pytest
import torch

from d3hr import load_images
from d3hr.diagnostics.normality import (
    anderson_statistic,
    corrected,
    henze_zirkler,
    normality_by_level,
    shares,
    spread_levels,
)
from d3hr.distillation.levels import SIGNIFICANCE, LatentSample
from d3hr.distillation.presets import distill_settings
from d3hr.prior.class_matching import match_classes
from tests.conftest import MakeFolder, untrained_prior

DIMENSIONS = 1000
GROUPS = [torch.arange(start, start + 4) for start in range(0, DIMENSIONS, 4)]


def test_gaussian_dimensions_pass_as_often_as_they_should() -> None:
    """At 5 %, 0.95 of Gaussian dimensions pass, with standard deviation sqrt(0.95 * 0.05 / 1000) = 0.0069, and of groups 0.0138; after
    Benjamini and Hochberg's correction all of them with probability 0.95, and hardly one fails."""
    found = shares(torch.randn(64, DIMENSIONS, generator=torch.Generator().manual_seed(0)), GROUPS)
    for name in ("shapiro", "dagostino", "anderson"):
        assert found[name] == pytest.approx(0.95, abs=4 * 0.0069)
        assert found[f"{name}_bh"] >= 0.995
    assert found["multivariate"] == pytest.approx(0.95, abs=4 * 0.0138)


def test_uniform_and_bimodal_dimensions_fail() -> None:
    """Two narrow modes at -1 and 1 are rejected by every test and after correction; uniform ones, at N = 64, mostly by each."""
    generator = torch.Generator().manual_seed(0)
    modes = torch.randn(64, DIMENSIONS, generator=generator).sign() + 0.1 * torch.randn(64, DIMENSIONS, generator=generator)
    found = shares(modes, GROUPS)
    assert max(found.values()) < 0.02
    uniform = shares(torch.rand(64, DIMENSIONS, generator=generator), GROUPS)
    assert max(uniform[name] for name in ("shapiro", "dagostino", "anderson")) < 0.5


def test_dimensions_without_spread_count_as_rejected() -> None:
    assert set(shares(torch.ones(16, 8), [torch.arange(4)]).values()) == {0.0}


def test_dependence_between_gaussian_dimensions_is_seen_by_the_multivariate_test_alone() -> None:
    """With x Gaussian and s = +-1, (x, s x) has Gaussian dimensions but lies on two lines."""
    generator = torch.Generator().manual_seed(1)
    x, sign = torch.randn(200, 100, generator=generator), torch.randn(200, 100, generator=generator).sign()
    found = shares(torch.cat([x, x * sign], dim=1), [torch.tensor([k, k + 100]) for k in range(100)])
    assert found["shapiro"] == pytest.approx(0.95, abs=0.07)
    assert found["multivariate"] == 0.0


def test_henze_zirkler_does_not_depend_on_position_and_scale() -> None:
    """The statistic is a function of Mahalanobis distances, which an affine map leaves alone."""
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(40, 3))
    assert henze_zirkler(x @ rng.normal(size=(3, 3)) + 5) == pytest.approx(henze_zirkler(x), rel=1e-6)


def test_benjamini_hochberg_by_hand() -> None:
    """p = 0.01, 0.02, 0.03, 0.5 times 4 / rank: 0.04, 0.04, 0.04, 0.5. So three are rejected, where Bonferroni (0.0125) rejects one."""
    assert corrected(np.array([0.02, 0.5, 0.01, 0.03])) == pytest.approx([0.04, 0.5, 0.04, 0.04])
    assert (corrected(np.array([0.02, 0.5, 0.01, 0.03])) >= SIGNIFICANCE).mean() == 0.25


def test_anderson_darling_statistic_is_scipys() -> None:
    """The 5 % point of the statistic with estimated mean and variance is 0.752 / (1 + 0.75 / N + 2.25 / N^2) (Stephens, 1986)."""
    from scipy.stats import goodness_of_fit, norm

    x = np.random.default_rng(0).exponential(size=(30, 2))
    theirs = [goodness_of_fit(norm, x[:, column], statistic="ad", n_mc_samples=1).statistic for column in range(2)]
    assert anderson_statistic(x) == pytest.approx(theirs)
    null = anderson_statistic(np.random.default_rng(1).normal(size=(64, 9999)))
    assert np.quantile(null, 0.95) == pytest.approx(0.752 / (1 + 0.75 / 64 + 2.25 / 64**2), rel=0.03)


def test_levels_are_spread_and_hold_the_sets_own() -> None:
    """Six of 0 to 49 are 0, 9.8, 19.6, 29.4, 39.2, 49; the fourth gives way to level 31."""
    assert spread_levels(distill_settings("paper"), 6) == [0, 10, 20, 31, 39, 49]
    assert spread_levels(distill_settings("paper", steps=3, level=1), 6) == [0, 1, 2]
    assert spread_levels(distill_settings("paper"), 1) == [0]


def test_levels_of_a_prior(image_folder: MakeFolder) -> None:
    """One row a level with its timestep; classes of fewer than 8 images are not asked."""
    images = load_images(image_folder({"ant": 10, "bee": 9, "cat": 3}))
    prior = untrained_prior(images.class_names)
    sample = LatentSample.choose(images, prior, match_classes(images.class_names, prior.class_names, of="images"))
    assert sample is not None
    found = normality_by_level(sample, prior, distill_settings("paper", steps=4, level=2), 3)
    assert [(row.level, row.timestep) for row in found.levels] == [(0, 0), (2, 500), (3, 750)]
    assert set(found.classes) == {"ant", "bee"}
    ant, bee = found.classes["ant"][1], found.classes["bee"][1]
    assert ant is not None and bee is not None
    assert found.levels[1].shapiro == pytest.approx((ant + bee) / 2)


def test_henze_zirkler_of_the_iris_data() -> None:
    """R's package MVN gives p = 0.04995356 for the 50 flowers of Iris setosa in four dimensions."""
    from sklearn.datasets import load_iris

    assert henze_zirkler(load_iris().data[:50]) == pytest.approx(0.04995356, abs=1e-7)
