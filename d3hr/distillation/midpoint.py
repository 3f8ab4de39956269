"""Second-order steps for flows, at one prediction each: the midpoint rule, started from the midpoint before (FireFlow, arXiv 2412.07517).

The midpoint rule takes a step with the velocity half way along it, where it must first get to. FireFlow gets there with the velocity of the
midpoint before, which is a step away, so that the place is off by the square of the step and the result by its cube, as of the rule itself.

Legend: N latents, C h w latent axes.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from d3hr.prior.schedules.schedule import Point, Schedule

Predict = Callable[[Tensor, Point], Tensor]
"""Gives the slope q [N, C, h, w] in latents [N, C, h, w] at the time of a point."""


def midpoint_path(predict: Predict, schedule: Schedule, z: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
    """Yield z at each of the points after the first, up or down the schedule: of n points from n predictions, one of them at the first.

    Where the slope stays the same along the path, the result is exact.
    """
    slope: Tensor | None = None
    for start, end in pairwise(points):
        half_way = schedule.between(start, end)
        slope = predict(z, start) if slope is None else slope
        slope = predict(schedule.step(z, slope, start, half_way), half_way)
        z = schedule.step(z, slope, start, end)
        yield z
