import math

import numpy as np
import pytest
from scipy.stats import t

from d3hr.comparison.statistics import advantages_on, paired_difference
from d3hr.evaluation.results import TrainingResult


def runs(*accuracies: tuple[int, int, float]) -> list[TrainingResult]:
    """Runs of (distillation seed, training seed, accuracy)."""
    return [TrainingResult(value, value, training_seed=trained, distillation_seed=made) for made, trained, value in accuracies]


def test_an_interval_by_hand() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, standard deviation 0.1, t(0.975, 2) = 4.3027, half-width 4.3027 * 0.1 / sqrt(3)."""
    ours = runs((0, 0, 0.5), (1, 1, 0.6), (2, 2, 0.7))
    found = paired_difference(ours, runs((2, 2, 0.4), (0, 0, 0.4), (1, 1, 0.4)))
    assert found is not None
    assert found.mean == pytest.approx(0.2) and found.pairs == 3
    assert found.high - found.mean == pytest.approx(4.30265 * 0.1 / 3**0.5, rel=1e-5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert not found.certain


def test_trainings_of_one_set_count_once() -> None:
    """Two trainings of each of two sets are two independent differences, whatever the trainings scatter."""
    ours = runs((0, 0, 0.9), (0, 1, 0.5), (1, 2, 0.8), (1, 3, 0.8))
    found = paired_difference(ours, runs((0, 0, 0.5), (0, 1, 0.5), (1, 2, 0.5), (1, 3, 0.5)))
    assert found is not None
    assert found.mean == pytest.approx(0.25) and found.pairs == 2
    assert found.high == pytest.approx(0.25 + 12.7062 * (0.1 / 2**0.5) / 2**0.5, rel=1e-4)


def test_a_method_without_draws_is_paired_by_training_seed() -> None:
    """Sets of one seed on the other side: each of our sets still makes a pair of its own."""
    found = paired_difference(runs((0, 0, 0.6), (1, 1, 0.7)), runs((0, 0, 0.5), (0, 1, 0.5)))
    assert found is not None and found.pairs == 2


def test_one_set_counts_once_however_many_it_is_compared_with() -> None:
    """One set, trained three times, against three sets of a baseline: the mean of three differences, of which one is independent."""
    ours = runs((0, 0, 0.7), (0, 1, 0.7), (0, 2, 0.7))
    found = paired_difference(ours, runs((0, 0, 0.4), (1, 1, 0.5), (2, 2, 0.6)))
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high, found.pairs) == (-math.inf, math.inf, 1)


def test_trainings_of_one_pair_of_sets_are_one_difference() -> None:
    found = paired_difference(runs((0, 0, 0.7), (0, 1, 0.8)), runs((0, 0, 0.5), (0, 1, 0.5)))
    assert found is not None and found.pairs == 1 and found.mean == pytest.approx(0.25)


def test_sets_are_paired_with_sets_where_training_seeds_collide() -> None:
    """Sets 0, 1, 2 trained with (0, 2), (2, 4), (4, 6) on both sides: three differences 0.1, 0.2, 0.3 of sets, none across sets."""
    seeds = [(0, 0), (0, 2), (1, 2), (1, 4), (2, 4), (2, 6)]
    ours = runs(*((made, trained, 0.5 + 0.1 * (made + 1)) for made, trained in seeds))
    found = paired_difference(ours, runs(*((made, trained, 0.5) for made, trained in seeds)))
    assert found is not None and found.pairs == 3 and found.mean == pytest.approx(0.2)
    assert found.high - found.mean == pytest.approx(4.30265 * 0.1 / 3**0.5, rel=1e-5)


def test_one_pair_has_no_interval_and_none_no_difference() -> None:
    one = paired_difference(runs((0, 0, 0.6)), runs((0, 0, 0.5)))
    assert one is not None
    assert (one.low, one.high, one.certain) == (-math.inf, math.inf, False)
    assert paired_difference(runs((0, 0, 0.6)), runs((0, 1, 0.5))) is None


def test_certain_where_zero_is_outside() -> None:
    found = paired_difference(runs((0, 0, 0.60), (1, 1, 0.61)), runs((0, 0, 0.70), (1, 1, 0.71)))
    assert found is not None and found.certain and found.mean == pytest.approx(-0.1)


def hits(place: int, *right: int) -> TrainingResult:
    """A run of set ``place`` that has these test images right: a 1 or a 0 each."""
    return TrainingResult(sum(right) / len(right), 0.0, training_seed=place, distillation_seed=place, hits="".join(map(str, right)))


def test_an_interval_for_other_sets_and_images_by_hand() -> None:
    """Two sets, three images: d = [[1, 1, 0], [1, 0, -1]], mean 1/3; means of sets 2/3 and 0, variance 2/9; means of images 1, 1/2, -1/2,
    variance 7/12. The variance of the mean is 2/9 / 2 + 7/12 / 3 = 1/9 + 7/36 = 11/36; its degrees of freedom (11/36)^2 / ((1/9)^2 / 1 +
    (7/36)^2 / 2) = 242/81 = 2.98765."""
    ours = [hits(0, 1, 1, 0), hits(1, 1, 1, 0)]
    other = [hits(0, 0, 0, 0), hits(1, 0, 1, 1)]
    found = advantages_on({"way": ours}, other)["way"]
    assert found.mean == pytest.approx(1 / 3) and found.pairs == 2
    assert found.high - found.mean == pytest.approx(float(t.ppf(0.975, 242 / 81)) * (11 / 36) ** 0.5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_the_scatter_of_sets_is_that_of_all_ways() -> None:
    """A way without scatter, next to one whose two sets differ by 2/3: both are as unsure about other sets."""
    other = [hits(0, 0, 0, 0), hits(1, 0, 0, 0)]
    still, wild = [hits(0, 1, 1, 1), hits(1, 1, 1, 1)], [hits(0, 1, 1, 1), hits(1, 1, 0, 0)]
    alone, both = advantages_on({"still": still}, other), advantages_on({"still": still, "wild": wild}, other)
    assert alone["still"].low == alone["still"].high == 1
    assert both["still"].high - 1 == pytest.approx(float(t.ppf(0.975, 2)) * (2 / 9 / 2 / 2) ** 0.5)


def test_one_set_of_each_way_has_no_bounds_and_runs_without_a_partner_do_not_count() -> None:
    found = advantages_on({"one": [hits(0, 1, 1)], "none": [hits(5, 1, 1)]}, [hits(0, 0, 1)])
    assert list(found) == ["one"]
    assert (found["one"].mean, found["one"].low, found["one"].high) == (0.5, -math.inf, math.inf)


def test_the_best_of_several_equal_ways_seldom_looks_better() -> None:
    """Four ways and random real images that are right by chance alone, 200 times: Bonferroni's intervals (95 % together) lie above zero for
    the best of them in 2.5 % of all cases at most."""
    generator, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        drawn = (generator.random((5, 3, 60)) < 0.3).astype(int)
        runs_of = [[hits(place, *right) for place, right in enumerate(way)] for way in drawn]
        found = advantages_on({str(way): runs_of[way] for way in range(1, 5)}, runs_of[0], confidence=1 - 0.05 / 4)
        wrong += max(found.values(), key=lambda one: one.mean).low > 0
    assert wrong <= 0.025 * 200
