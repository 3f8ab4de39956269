import time

import pytest
import torch

from d3hr.planning import measure as measuring
from d3hr.planning.measure import Timing, chosen_sizes, measure

CPU = torch.device("cpu")


@pytest.mark.parametrize(("size", "seconds"), [(1, 2.0), (4, 2.0), (6, 3.0), (8, 4.0), (12, 6.0)])
def test_between_and_beyond_measured_sizes(size: int, seconds: float) -> None:
    """(4, 2 s) and (8, 4 s): half a second an image between and beyond, two seconds at least."""
    assert Timing({8: 4.0, 4: 2.0}).at(size) == seconds


def test_one_size_is_extended_in_proportion() -> None:
    assert Timing({4: 2.0}).at(10) == 5.0
    assert Timing({4: 2.0}).total([4, 8]) == 6.0
    assert Timing().at(3) == 0.0


def test_a_line_through_depths() -> None:
    """One block 3 s, two blocks 5 s: 28 blocks 3 + 27 * 2 s; a second measurement below the first counts as equal."""
    assert Timing({4: 3.0}, 0.1).scaled(Timing({4: 5.0}, 0.1), 27).seconds == {4: 57.0}
    assert Timing({4: 3.0}).scaled(Timing({4: 2.9}), 27).seconds == {4: 3.0}


def test_sizes_that_matter_are_measured() -> None:
    assert chosen_sizes({64: 100, 3: 1, 50: 2, 40: 1, 39: 1}) == [3, 40, 50, 64]
    assert chosen_sizes({}) == []


def test_every_size_is_run() -> None:
    sizes: list[int] = []
    timed = measure(sizes.append, [64, 5], CPU)
    assert set(timed.seconds) == {5, 64} <= set(sizes)
    assert timed.complete


def test_memory_bounds_the_batch() -> None:
    timed = measure(lambda n: None, [5, 64], CPU, largest=16)
    assert set(timed.seconds) == {5, 16}
    assert not timed.complete


def test_what_takes_too_long_is_run_on_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second an image, three seconds allowed: one image is run, the batch never; its 64 seconds are extended from it."""
    clock = iter(range(0, 1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(measuring, "LONGEST", 1.5)
    sizes: list[int] = []
    timed = measure(sizes.append, [64], CPU)
    assert sizes == [1, 1]
    assert timed.at(64) == 64.0
    assert not timed.complete


@pytest.mark.parametrize("sizes", [[1], [64]])
def test_a_first_call_of_more_than_setting_up_is_not_repeated(monkeypatch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    clock = iter(range(0, 1000, 11))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    ran: list[int] = []
    timed = measure(ran.append, sizes, CPU)
    assert ran == [1]
    assert timed.seconds == {1: 11.0}
