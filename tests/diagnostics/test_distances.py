"""Distances between clouds of points whose distance has a formula."""

import numpy as np
import pytest

from d3hr.diagnostics.distances import (
    DISTANCES,
    Distance,
    Measures,
    distances,
    frechet,
    gaussian_distance,
    median_squared_distance,
    mmd,
    sinkhorn,
    sliced_wasserstein,
)


def test_mmd_of_four_points_by_hand() -> None:
    """x = {0, 1}, y = {2, 3}, gamma = 1: within each side the only pair gives e^-1. Across, the distances 2, 3, 1, 2 give
    (e^-4 + e^-9 + e^-1 + e^-4) / 4. So MMD^2 = 2 e^-1 - 2 times that mean."""
    expected = 2 * np.exp(-1) - (2 * np.exp(-4) + np.exp(-9) + np.exp(-1)) / 2
    assert mmd(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]]), gamma=1.0) == pytest.approx(expected)
    assert mmd(np.zeros((1, 2)), np.zeros((3, 2)), gamma=1.0) is None


def test_mmd_of_gaussians() -> None:
    """For N(0, I) and N(m, I) in D dimensions E k(a, b) = (1 + 4 gamma)^(-D/2) exp(-gamma |m_a - m_b|^2 / (1 + 4 gamma)), so that
    MMD^2 = 2 (1 + 4 gamma)^(-D/2) (1 - exp(-gamma |m|^2 / (1 + 4 gamma))); with gamma 1/4, D 2, |m| 1 it is 1 - e^-0.125 = 0.1175."""
    rng = np.random.default_rng(0)
    x, y, z = rng.normal(size=(3, 2000, 2))
    assert mmd(x, y + np.array([1, 0]), gamma=0.25) == pytest.approx(1 - np.exp(-0.125), abs=0.015)
    assert mmd(x, z, gamma=0.25) == pytest.approx(0, abs=0.003)
    assert mmd(x, x, gamma=0.25) == pytest.approx(0, abs=0.001)  # the diagonal, 1 - 0.5 on average, twice over N


def test_sliced_wasserstein_of_a_shift() -> None:
    """A shift by m moves each projection by its component along m: the root mean square over directions is |m| / sqrt(D)."""
    x = np.random.default_rng(0).normal(size=(50, 8))
    shift = np.full(8, 0.5)
    assert sliced_wasserstein(x, x + shift, seed=0) == pytest.approx(np.linalg.norm(shift) / 8**0.5, rel=0.2)
    assert sliced_wasserstein(x, x, seed=0) == pytest.approx(0, abs=1e-6)


def test_sinkhorn_divergence_of_two_points() -> None:
    """Between single points the only plan costs |a - b|^2, and each point is at no distance from itself."""
    assert sinkhorn(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]), 0.5) == pytest.approx(25)
    x = np.random.default_rng(0).normal(size=(20, 2))
    assert sinkhorn(x, x, 0.5) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_gaussians() -> None:
    """For commuting covariances it is |m_x - m_y|^2 + sum (sqrt(c_x) - sqrt(c_y))^2: 25 + (1-2)^2 + (3-1)^2 = 30."""
    found = gaussian_distance(np.zeros(2), np.diag([1.0, 9.0]), np.array([3.0, 4.0]), np.diag([4.0, 1.0]))
    assert found == pytest.approx(30)


def test_frechet_distance_of_samples() -> None:
    """Samples of the Gaussians N(0, I) and N((3, 4), 4 I) lie 25 + 2 apart; one point has no covariance."""
    rng = np.random.default_rng(0)
    assert frechet(rng.normal(size=(4000, 2)), 2 * rng.normal(size=(4000, 2)) + [3, 4]) == pytest.approx(27, rel=0.03)
    assert frechet(rng.normal(size=(1, 2)), rng.normal(size=(9, 2))) is None


def test_median_heuristic() -> None:
    """The squared distances of 0, 1 and 3 are 1, 4 and 9; points that coincide have no scale of their own."""
    assert median_squared_distance(np.array([[0.0], [1.0], [3.0]])) == 4
    assert median_squared_distance(np.zeros((5, 2))) == 1


def units_from_reference(distance: Distance) -> float:
    """Return how many of the reference's standard deviations a distance lies above its mean."""
    assert distance.distilled is not None and distance.reference_mean is not None and distance.reference_std is not None
    return (distance.distilled - distance.reference_mean) / distance.reference_std


def test_a_distance_stands_beside_its_reference() -> None:
    """Points of the same distribution lie about as far as the reference, shifted ones further, by every distance."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 6))
    draws = [(real[order[:20]], real[order[20:]]) for order in (rng.permutation(200) for _ in range(4))]
    measures = Measures(real, seed=0)
    same, shifted = (distances(measures, rng.normal(size=(20, 6)) + shift, draws) for shift in (0, 1))
    for name in DISTANCES:
        assert units_from_reference(shifted[name]) > 5
        assert abs(units_from_reference(same[name])) < 5
    alone = distances(measures, real[:1], [])
    assert alone["mmd"].distilled is None and alone["frechet"].distilled is None
    assert alone["sinkhorn"].distilled is not None and alone["sinkhorn"].distilled > 0
    assert alone["sinkhorn"].reference_mean is None
