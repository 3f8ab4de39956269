from collections.abc import Callable

import numpy as np
import pytest
import torch

from d3hr.distillation.mixture import k_means_centres
from d3hr.selection.rules import farthest_order, herding_order, medoids


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_herding_by_hand() -> None:
    """Values 0, 1, 2, 3, 10: the mean is 3.2. First 3, at 0.2. With 3 the mean of two is 1.5 (0), 2 (1), 2.5 (2) or 6.5 (10): take 2.
    With 5 in sum the mean of three is 5/3, 2 or 5 (10): 10 is 1.8 away, 1 is 1.2 away: take 1. With 6 the mean of four is 1.5 or 4:
    10 is nearer (0.8 against 1.7). Then 0 is left."""
    assert herding_order(column(0, 1, 2, 3, 10), 5) == [3, 2, 1, 4, 0]


def test_herding_is_the_greedy_choice_of_every_step() -> None:
    """Against the definition spelled out: of all rows that are left, the one that gives the nearest mean."""
    features = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen: list[int] = []
    for _ in range(12):
        left = [row for row in range(40) if row not in chosen]
        gaps = [float((features[[*chosen, row]].mean(dim=0) - features.mean(dim=0)).norm()) for row in left]
        chosen.append(left[int(np.argmin(gaps))])
    assert herding_order(features.float(), 12) == chosen


def test_k_center_by_hand() -> None:
    """Values 0, 4, 5, 6, 20: the mean is 7, nearest 6. Farthest from 6: 20 (14). Then 0 (6), then of 4 (2 from 6) and 5 (1) the 4."""
    assert farthest_order(column(0, 4, 5, 6, 20), 5) == [3, 4, 0, 1, 2]


def test_k_center_takes_no_row_twice() -> None:
    """Rows that coincide are at distance 0 of each other, and still each is taken once."""
    assert sorted(farthest_order(column(1, 1, 1, 2), 4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("order", [herding_order, farthest_order])
def test_a_larger_choice_contains_the_smaller(order: Callable[[torch.Tensor, int], list[int]]) -> None:
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    assert order(features, 10)[:4] == order(features, 4)


def test_k_means_takes_the_row_nearest_to_the_centre_of_each_cluster() -> None:
    """Three clusters far apart, of 5 rows each: c, c + e, c - e, c + f, c - f, whose centre is c itself: rows 0, 5 and 10."""
    corners = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    star = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    features = (corners[:, None] + star).flatten(0, 1)
    centres = k_means_centres(features, 3, seed=5)
    np.testing.assert_allclose(sorted(centres.tolist()), sorted(corners.tolist()), atol=1e-9)
    assert sorted(medoids(features, centres)) == [0, 5, 10]


def test_medoids_are_different_rows() -> None:
    """Both centres, 1.0 and 0.9, are nearest to the row at 1. If 1.0 takes it and 0.9 the row at 2, the squares are 0 + 1.21; the other way
    round they are 1 + 0.01, which is less."""
    assert medoids(column(-5, 1, 2), np.array([[1.0], [0.9]])) == [2, 1]


def test_as_many_centres_as_rows_some_of_which_coincide() -> None:
    features = column(0, 0, 0, 5)
    assert sorted(medoids(features, k_means_centres(features, 4, seed=0))) == [0, 1, 2, 3]
