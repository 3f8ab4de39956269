"""Distances between clouds of points whose distance has a formula."""

import numpy as np
import pytest
from scipy.stats import norm

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
    assert sinkhorn(x, x, 0.5) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("regularisation", [0.05, 0.5, 5.0])
def test_sinkhorn_divergence_by_hand(regularisation: float) -> None:
    """Of {0, 1} and {1/2}: the only plan between them costs 1/4 and is the product, so OT = 1/4. From {0, 1} to itself the plan has
    1 / (2 (1 + t)) on the diagonal and t / (2 (1 + t)) off it, t = e^(-1/eps), and OT = eps log(2 / (1 + t))."""
    t = np.exp(-1 / regularisation)
    expected = 1 / 4 - regularisation / 2 * np.log(2 / (1 + t))
    assert sinkhorn(np.array([[0.0], [1.0]]), np.array([[0.5]]), regularisation) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_sinkhorn_divergence_of_gaussians() -> None:
    """Of N(0, 1) and N(m, s^2) at eps = 2 v (Janati et al., arXiv 2006.02572, theorem 1): OT = m^2 + a + b - d + v (1 - log(2 v)) +
    v log(d + v) up to a constant of each term alike, with variances a, b and d = sqrt(4 a b + v^2)."""

    def cost(a: float, b: float, v: float) -> float:
        d = (4 * a * b + v**2) ** 0.5
        return float(a + b - d + v * (1 - np.log(2 * v)) + v * np.log(d + v))

    v, quantiles = 0.5, norm.ppf((np.arange(500) + 0.5) / 500)[:, None]
    x = quantiles / quantiles.std()
    y = 1 + 2 * x
    expected = 1 + cost(1, 4, v) - (cost(1, 1, v) + cost(4, 4, v)) / 2
    assert sinkhorn(x, y, 2 * v) == pytest.approx(expected, rel=0.01)


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
    same, shifted = (distances(real, rng.normal(size=(20, 6)) + shift, draws, seed=0) for shift in (0, 1))
    for name in DISTANCES:
        assert units_from_reference(shifted[name]) > 5
        assert abs(units_from_reference(same[name])) < 5
    alone = distances(real, real[:1], [], seed=0)
    assert alone["mmd"].distilled is None and alone["frechet"].distilled is None
    assert alone["sinkhorn"].distilled is not None and alone["sinkhorn"].distilled > 0
    assert alone["sinkhorn"].reference_mean is None


def test_the_reference_has_no_part_in_what_it_is_measured_with() -> None:
    """Real points vary along 64 axes, but for ten that lie apart along another. With these as the reference the 64 components are those
    of the others: the reference has no distance along its own axis, however far it is."""
    rng = np.random.default_rng(0)
    rest, apart = (np.pad(rng.normal(size=(count, 64)), ((0, 0), (0, 1))) for count in (100, 10))
    for far in (3.0, 30.0):
        apart[:, 64] = far
        found = distances(np.concatenate([rest, apart]), rest[:10], [(apart, rest)], seed=0)["frechet"]
        assert found.reference_mean == pytest.approx(frechet(rest[:, :64], apart[:, :64]), rel=1e-6)


def test_a_set_and_its_reference_share_directions_that_differ_between_draws() -> None:
    """A set equal to the reference is as far, to the bit, in each draw; the same draw twice is not as far both times."""
    points = np.random.default_rng(0).normal(size=(60, 8))
    draw = points[:10], points[10:]
    once, twice = (distances(points, points[:10], [draw] * times, seed=0)["sliced_wasserstein"] for times in (1, 2))
    assert once.distilled == once.reference_mean and twice.distilled == twice.reference_mean
    assert twice.reference_std is not None and twice.reference_std > 0
    assert distances(points, points[:10], [draw], seed=1)["sliced_wasserstein"] != once


def test_classes_are_measured_with_one_kernel() -> None:
    """A class ten times as narrow as all real points is compared at their bandwidth, so that figures of classes can be compared."""
    rng = np.random.default_rng(0)
    narrow, wide, points = 0.1 * rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), rng.normal(size=(9, 3))
    real = np.concatenate([narrow, wide])
    assert Measures(real, seed=0).mmd(points, narrow) == mmd(narrow, points, gamma=0.5 / median_squared_distance(real))
