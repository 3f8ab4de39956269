import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from d3hr.distillation.mixture import k_means_centres
from d3hr.errors import DataError
from d3hr.selection import rules
from d3hr.selection.rules import (
    centre,
    easiest,
    facility_location,
    farthest_order,
    half_centre_half_margin,
    herding_order,
    interval,
    least_confident,
    margin,
    medoids,
    separation,
)


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
    assert sorted(centre(features, 3, seed=5)) == [0, 5, 10]


def test_medoids_are_different_rows() -> None:
    """Both centres, 1.0 and 0.9, are nearest to the row at 1. If 1.0 takes it and 0.9 the row at 2, the squares are 0 + 1.21; the other way
    round they are 1 + 0.01, which is less."""
    assert medoids(column(-5, 1, 2), np.array([[1.0], [0.9]])) == [2, 1]


def test_as_many_centres_as_rows_some_of_which_coincide() -> None:
    features = column(0, 0, 0, 5)
    assert sorted(medoids(features, k_means_centres(features, 4, seed=0))) == [0, 1, 2, 3]


def test_facility_location_by_hand() -> None:
    """Values 0, 1, 2, 10, 11: sums of distances are 24, 21, 20, 28, 32, so 2 is first. Then 10 spares 8 + 8 (to 10 and 11), 11 spares
    7 + 9, 0 spares 2 + 0, 1 spares 1 + 1: of 10 and 11, which are equal, the first. Then 0 spares 2, 1 spares 1 + 1, 11 spares 1: 0."""
    assert facility_location(column(0, 1, 2, 10, 11), 3) == [2, 3, 0]


def test_facility_location_keeps_its_promise() -> None:
    """At least 1 - 1/e of the best of all choices, on 20 random cases, and not the best on all of them."""
    generator, shares = torch.Generator().manual_seed(0), list[float]()
    for _ in range(20):
        features = torch.randn(11, 2, generator=generator, dtype=torch.float64) ** 3
        similarity = torch.cdist(features, features)
        similarity = similarity.max() - similarity

        def value(chosen: Sequence[int]) -> float:
            return float(similarity[:, list(chosen)].amax(dim=1).sum())  # noqa: B023

        chosen = facility_location(features, 3)
        assert chosen[:2] == facility_location(features, 2)
        shares.append(value(chosen) / max(map(value, itertools.combinations(range(11), 3))))
    assert 1 - 1 / np.e <= min(shares) < max(shares) <= 1 + 1e-6


def test_facility_location_takes_no_row_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where rows coincide, and where their distances are compared in parts."""
    monkeypatch.setattr(rules, "_BLOCK_VALUES", 8)
    assert sorted(facility_location(column(1, 1, 1, 2), 4)) == [0, 1, 2, 3]


CONFIDENCE = torch.tensor([0.5, 0.9, 0.1, 0.9, 0.3, 0.2])


def test_the_easiest_are_those_of_highest_confidence() -> None:
    assert easiest(CONFIDENCE, 4) == [1, 3, 0, 4]
    assert easiest(torch.ones(1000), 4) == [0, 1, 2, 3]


def test_the_margin_is_the_lowest_confidence_that_is_not_doubtful() -> None:
    """Of six images no more than 3 % are none; of a hundred, three."""
    assert margin(CONFIDENCE, 3) == [2, 5, 4]
    assert margin(CONFIDENCE, 3, torch.tensor([False, False, True, False, True, False])) == [5, 0, 1]
    assert margin(CONFIDENCE, 3, least_confident(CONFIDENCE, 0.4)) == [4, 0, 1]
    assert margin(torch.arange(100).flip(0) / 100, 2) == [96, 95]


@pytest.mark.parametrize("choose", [lambda mask: margin(CONFIDENCE, 3, mask), lambda mask: half(torch.rand(6, 2), CONFIDENCE, 3, mask)])
def test_too_many_doubtful_images_are_refused(choose: Callable[[torch.Tensor], list[int]]) -> None:
    with pytest.raises(DataError, match=r"(?s)Too few images.*found: 2 of 6, for 3 to choose"):
        choose(torch.tensor([True, True, False, True, False, True]))


def half(features: torch.Tensor, confidence: torch.Tensor, k: int, doubtful: torch.Tensor) -> list[int]:
    return half_centre_half_margin(features, confidence, k, doubtful, seed=0)


def test_a_typical_and_a_difficult_image_of_each_cluster() -> None:
    """Clusters of 6, 4 and 3 images about 0, 10 and 20 on a line. The first of each is at its centre; row 2, of lowest confidence in the
    first cluster, is doubtful, so row 1 is next. For five images the smallest cluster gives only its centre."""
    features = column(0, 1, -1, 0.1, -0.9, 10, 11, 9, 10.1, 20, 21, 19, -0.2)
    confidence = torch.tensor([0.9, 0.2, 0.0, 0.5, 0.5, 0.05, 0.7, 0.6, 0.8, 0.4, 0.2, 0.3, 0.5])
    doubtful = torch.arange(13) == 2
    chosen = half(features, confidence, 6, doubtful)
    assert sorted(chosen[:3]) == [0, 5, 9]
    assert chosen[3:] == [1, 7, 10]
    odd = half(features, confidence, 5, doubtful)
    assert sorted(odd[:3]) == [0, 5, 9]
    assert odd[3:] == [1, 7]


def test_a_cluster_of_one_image_leaves_its_difficult_one_to_the_others() -> None:
    features = column(0, 0.5, -0.5, 1, -1, 100)
    assert sorted(half(features, torch.tensor([0.9, 0.1, 0.3, 0.2, 0.8, 0.0]), 4, torch.zeros(6, dtype=torch.bool))) == [0, 1, 3, 5]


def test_interval_takes_the_middle_of_each_part_of_the_order() -> None:
    difficulty = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert interval(difficulty, 5) == [8, 6, 4, 2, 0]
    assert interval(difficulty, 1) == [4]
    assert interval(difficulty, 10) == list(range(9, -1, -1))
    assert [len(set(interval(torch.zeros(n), k))) for n in (7, 8) for k in range(1, n + 1)] == [*range(1, 8), *range(1, 9)]


def test_separation_takes_the_group_near_its_own_centre_and_far_from_the_others() -> None:
    """On a line with the own centre at 0 and others at 4 and -10: margins of 1, -1, 2, -3 are 3 - 1, 5 - 1, 2 - 2 and 7 - 3."""
    features, own, others = column(1, -1, 2, -3), torch.zeros(1), column(4, -10)
    assert separation([[0, 1], [2, 1], [3, 1]], features, own, others) == [3, 1]
    assert separation([[0, 2], [1, 3], [3, 1]], features, own, others) == [1, 3]
    assert separation([[2, 3], [0, 2], [0, 1]], features, own, column()[:0]) == [0, 1]
