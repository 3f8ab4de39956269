"""Differences of accuracy between two rows, run by run, with a confidence interval.

In a comparison every method is trained on with the same seeds, so that initial weights and order of batches are shared by pairs of runs
and drop out of their differences.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from d3hr.evaluation.training import Run

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How much more accurate one row is than another.

    Attributes:
        mean: mean difference of last-epoch accuracies, -1 to 1.
        low: lower end of the 95 % confidence interval; minus infinity where one pair is all there is.
        high: its upper end.
        pairs: how many independent differences it rests on: sets, or trainings where all are of one pair of sets.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(ours: Sequence[Run], other: Sequence[Run]) -> Difference | None:
    """Return the mean difference over runs of equal training seed, with the interval of Student's t; None where no seeds are shared.

    Runs on one pair of sets are not independent, so their differences are averaged first. With a single pair of sets the interval is that
    over its trainings and says nothing of other sets.
    """
    theirs = {run.training_seed: run for run in other}
    by_sets: dict[tuple[int, int], list[float]] = defaultdict(list)
    for run in ours:
        if pair := theirs.get(run.training_seed):
            by_sets[run.distillation_seed, pair.distillation_seed].append(run.last_epoch - pair.last_epoch)
    if not by_sets:
        return None
    groups = list(by_sets.values())
    values = [statistics.fmean(group) for group in groups] if len(groups) > 1 else groups[0]
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Difference(mean, -math.inf, math.inf, 1)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return Difference(mean, mean - half, mean + half, count)
