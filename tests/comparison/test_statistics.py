import math

import pytest

from d3hr.comparison.statistics import paired_difference
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
