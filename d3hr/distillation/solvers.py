"""How latents move along a prior's path from point to point: the solvers, each a generator of the latents at the points after the first.

``denoising_path`` goes down; ``ddim_path`` and ``fixed_point_path`` go up, and undo it nearly or exactly; ``midpoint_path`` goes both ways,
at second order.

Legend: N latents, C h w latent axes.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from d3hr.errors import NumericalError
from d3hr.prior.schedules.schedule import Point, Schedule

Predict = Callable[[Tensor, Point], Tensor]
"""Gives the slope q [N, C, h, w] in latents [N, C, h, w] at the time of a point."""
MAX_ITERATIONS = 200
"""Iterations of one fixed-point step before it is given up."""


class InexactInversion(UserWarning):
    """Steps of ``fixed_point`` were solved to the rounding of the network, which is coarser than that of the latents."""


def visited_levels(level: int, stride: int) -> list[int]:
    """Return the levels whose latents an inversion computes, 0 and ``level`` included: at most ``stride`` apart, as even as can be."""
    gaps = math.ceil(level / stride)
    return [0, *(level * gap // gaps for gap in range(1, gaps + 1))]


def denoising_path(predict: Predict, schedule: Schedule, z: Tensor, descent: Sequence[Point]) -> Iterator[Tensor]:
    """Yield z at each point after the first, by steps whose slope is predicted where they start."""
    for start, end in pairwise(descent):
        z = schedule.step(z, predict(z, start), start, end)
        yield z


def ddim_path(predict: Predict, schedule: Schedule, z: Tensor, grid: Sequence[Point], stride: int) -> Iterator[Tensor]:
    """Yield z at each visited level after 0.

    A stride from level i to j is one step with the mean over its levels k of the slopes q_k, weighted by s_k - s_{k-1}. Only q_{i+1} is
    predicted; the others lie on the line, over s, through it and the prediction of the stride before. That line has its mean at
    s_{i+1} + ahead, with ahead = sum_k (s_k - s_{k-1}) (s_k - s_{i+1}) / (s_j - s_i). The first stride has only its own prediction.
    """
    s = [schedule.coordinate(point) for point in grid]
    previous: tuple[float, Tensor] | None = None
    for i, j in pairwise(visited_levels(len(grid) - 1, stride)):
        slope = mean_slope = predict(z, grid[i + 1])
        if previous is not None and j > i + 1:
            ahead = sum((s[k] - s[k - 1]) * (s[k] - s[i + 1]) for k in range(i + 1, j + 1)) / (s[j] - s[i])
            previous_s, previous_slope = previous
            mean_slope = slope + (slope - previous_slope) * (ahead / (s[i + 1] - previous_s))
        z = schedule.step(z, mean_slope, grid[i], grid[j])
        previous = s[i + 1], slope
        yield z


def midpoint_path(predict: Predict, schedule: Schedule, z: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
    """Yield z at each of the points after the first, up or down a flow, at second order: of n points from n predictions.

    The midpoint rule takes a step with the velocity half way along it, where it must first get to. FireFlow (arXiv 2412.07517) gets there
    with the velocity of the midpoint before, which is a step away: the place is off by the square of the step, and the result by its cube,
    as of the rule itself. Where the slope stays the same along the path, the result is exact.
    """
    slope: Tensor | None = None
    for start, end in pairwise(points):
        half_way = schedule.between(start, end)
        slope = predict(z, start) if slope is None else slope
        slope = predict(schedule.step(z, slope, start, half_way), half_way)
        z = schedule.step(z, slope, start, end)
        yield z


def fixed_point_path(predict: Predict, schedule: Schedule, z: Tensor, grid: Sequence[Point], rounding: float) -> Iterator[Tensor]:
    """Yield z at each level after 0: the solution of z_k = step(z_{k-1}, q(z_k, t_k)), which undoes the denoising step from z_k.

    ``rounding`` is the relative error of q.
    """
    largest = 0.0
    for start, end in pairwise(grid):
        z, stalled_at = _fixed_point_step(predict, schedule, z, start, end, rounding)
        largest = max(largest, stalled_at)
        yield z
    if largest:
        warnings.warn(
            f"The inversion is exact to {largest:.0e} a step (root mean square), which the rounding of the network allows, not to that of "
            "the latents: a prior in fp32 is more exact.",
            InexactInversion,
            stacklevel=1,
        )


def _fixed_point_step(
    predict: Predict, schedule: Schedule, from_: Tensor, start: Point, end: Point, rounding: float
) -> tuple[Tensor, float]:
    """Solve z = step(from_, q(z, t)) by relaxed iteration from the ``ddim`` step; the relaxation is halved when the residual grows.

    The root mean square residual must fall to 8 units of rounding of z's own. One that no longer falls is accepted, and returned with z,
    if it is within 8 units of rounding of q, times the weight that q has in the step; else the second value is 0.
    """
    slope = predict(from_, end)
    z = schedule.step(from_, slope, start, end)
    tolerance = 8 * torch.finfo(z.dtype).eps * _rms(z)
    allowed = 8 * rounding * schedule.weight(start, end) * _rms(slope)
    relaxation, last_residual = 1.0, float("inf")
    best, best_residual = z, float("inf")
    for _ in range(MAX_ITERATIONS):
        change = schedule.step(from_, predict(z, end), start, end) - z
        residual = _rms(change)
        if residual <= tolerance:
            return z + relaxation * change, 0.0
        if residual < best_residual:
            best, best_residual = z, residual
        elif best_residual <= allowed:
            return best, best_residual
        z = z + relaxation * change
        if residual > last_residual:
            relaxation /= 2
        last_residual = residual
    if best_residual <= allowed:
        return best, best_residual
    raise NumericalError(
        "The exact inversion step was not reached.",
        found=f"residual {best_residual:.2e} after {MAX_ITERATIONS} iterations at time {end.t:g}",
        hint="use more --steps, a lower inversion guidance, or --solver ddim.",
    )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
