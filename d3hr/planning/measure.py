"""How long calls take on a device, by the size of their batch.

Legend: n images in a batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

REPEATS = 9
"""Largest number of repeats of which the median is taken; a call that is not slow is repeated at least three times."""
REPEAT_SECONDS = 0.4
"""Seconds after which one size is not repeated more than three times."""
LONGEST = 3.0
"""Seconds that a call may be expected to take; a longer one is extrapolated from a smaller batch."""
SETTING_UP = 10.0
"""Seconds that setting a device up takes at most: a first call that takes longer is not repeated."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call at several batch sizes.

    Attributes:
        seconds: median seconds of a call, by batch size.
        first: seconds that the first call of each size took beyond the median, in total: a device is set up for each size once.
        complete: whether every size requested was run.
    """

    seconds: Mapping[int, float] = field(default_factory=dict)
    first: float = 0.0
    complete: bool = True

    def at(self, size: int) -> float:
        """Return the seconds of a call of ``size`` images, on the line through the two nearest measured sizes.

        Below the smallest size a call takes as long as the smallest; above a single measured size, time grows in proportion.
        """
        measured = sorted(self.seconds.items())
        if not measured:
            return 0.0
        (largest, longest), (before, shorter) = measured[-1], measured[-2] if len(measured) > 1 else (0, 0.0)
        if size > largest:
            return longest + max(longest - shorter, 0.0) / (largest - before) * (size - largest)
        return float(np.interp(size, [n for n, _ in measured], [seconds for _, seconds in measured]))

    def total(self, sizes: Iterable[int]) -> float:
        """Return the seconds of one call of each of ``sizes``, without :attr:`first`."""
        return sum(self.at(size) for size in sizes)

    def times(self, factor: float) -> Timing:
        """Return the seconds of every size times a factor."""
        return Timing({size: factor * value for size, value in self.seconds.items()}, self.first, self.complete)

    def scaled(self, other: Timing, factor: float) -> Timing:
        """Return self + factor * (other - self), size by size: a line through two networks of different depth."""
        seconds = {size: value + factor * max(other.at(size) - value, 0.0) for size, value in self.seconds.items()}
        return Timing(seconds, self.first + factor * max(other.first - self.first, 0.0), self.complete and other.complete)


def chosen_sizes(occurrences: Mapping[int, int], limit: int = 4) -> list[int]:
    """Return at most ``limit`` batch sizes to measure: the smallest, the largest, and those that contain the most images."""
    if len(occurrences) <= limit:
        return sorted(occurrences)
    ends = {min(occurrences), max(occurrences)}
    rest = sorted((size for size in occurrences if size not in ends), key=lambda size: size * occurrences[size], reverse=True)
    return sorted({*ends, *rest[: limit - 2]})


def measure(run: Callable[[int], Any], sizes: Iterable[int], device: torch.device, *, largest: int | None = None, least: int = 1) -> Timing:
    """Measure ``run(n)`` for each n of ``sizes``, ascending. A size that would take too long or too much memory is replaced by a smaller.

    Args:
        largest: the largest size that memory allows.
        least: the size that is run in any case, in addition to 1, so that a fixed part can be told from one that grows.
    """
    seconds: dict[int, float] = {}
    first, complete, cost = 0.0, True, 0.0
    sizes = sorted(sizes)
    if sizes and sizes[0] > 1 and (once := seconds_of(lambda: run(1), device)) * sizes[-1] > LONGEST:
        # Expensive, unless most of that first call was spent on setting the device up.
        cost = once if once > SETTING_UP else seconds_of(lambda: run(1), device)
        first = max(once - cost, 0.0)
        if 2 * cost > LONGEST:
            more = {least: seconds_of(lambda: run(least), device)} if least > 1 else {}
            return Timing({1: cost, **more}, first, complete=False)
    for size in sizes:
        fitting = min(size, largest or size, max(1, int(LONGEST / cost)) if cost * size > LONGEST else size)
        complete = complete and fitting == size
        if fitting not in seconds:
            warm_up, seconds[fitting] = _repeated(run, fitting, device)
            first += max(warm_up - seconds[fitting], 0.0)
            cost = seconds[fitting] / fitting
    return Timing(seconds, first, complete)


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that ``run`` takes, including its work on the device."""
    _synchronise(device)
    start = time.perf_counter()
    run()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _repeated(run: Callable[[int], Any], size: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds of the first call and the median of the following ones."""
    warm_up = seconds_of(lambda: run(size), device)
    taken = [warm_up] if warm_up > SETTING_UP else []
    while not taken or (len(taken) < REPEATS and sum(taken) < (LONGEST / 2 if len(taken) < 3 else REPEAT_SECONDS)):
        taken.append(seconds_of(lambda: run(size), device))
    return warm_up, statistics.median(taken)
