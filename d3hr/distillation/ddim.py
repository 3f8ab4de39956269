"""Domain mapping: carries clean latents up to a noisy level by inversion, and back down by denoising (D3HR, arXiv 2505.18399).

Level k is the k-th point of the prior's grid, of time t_k (:meth:`~d3hr.prior.schedules.schedule.Schedule.path`); clean latents are at
level 0. Both directions take the same step (:meth:`~d3hr.prior.schedules.schedule.Schedule.step`): DDIM's (arXiv 2010.02502, eq. 12 with
sigma = 0) where the prior predicts noise, Euler's where it predicts a velocity.

Legend: N latents, C h w latent axes.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol, get_args

import torch
from torch import Tensor

from d3hr.distillation.midpoint import Predict, midpoint_path
from d3hr.distillation.settings import Solver
from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.conditions import Condition
from d3hr.prior.schedules.schedule import Point, Schedule

MAX_ITERATIONS = 200
"""Iterations of one fixed-point step before it is given up."""


class InexactInversion(UserWarning):
    """Steps of ``fixed_point`` were solved to the rounding of the network, which is coarser than that of the latents."""


class SlopePredictor(Protocol):
    """The part of a prior that inversion and denoising use."""

    @property
    def schedule(self) -> Schedule:
        """Its points and steps."""

    @property
    def rounding(self) -> float:
        """Relative rounding error of its arithmetic, such as 7.8e-3 for bfloat16 (``torch.finfo(...).eps``)."""

    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Return the slope of the schedule [N, C, h, w] in ``latents`` [N, C, h, w] at the time of a point, under a condition."""


def invert(
    prior: SlopePredictor,
    latents: Tensor,
    labels: Condition | Tensor,
    *,
    level: int,
    steps: int = 50,
    guidance_scale: float = 4.0,
    solver: Solver = "ddim",
    stride: int = 1,
) -> Tensor:
    """Carry clean latents up to a level.

    ``ddim`` takes the step k-1 -> k with the slope predicted at (z_{k-1}, t_k), as D3HR does. ``fixed_point`` solves each step for the
    z_k that :func:`denoise` leads back to z_{k-1}, so that the round trip is exact to rounding, at several predictions a step. Behind a
    network of lower precision than the latents a step ends where the network's own rounding lets it: an :class:`InexactInversion` then
    says how far from exact the steps are. ``midpoint``, of flows, follows their path at second order, with one prediction more than steps:
    :func:`denoise` must do so too.

    Args:
        prior: the diffusion model.
        latents: clean latents [N, C, h, w], at level 0.
        labels: rows [N] of the prior's label table, or the condition of a class (:meth:`Prior.conditions`).
        level: the level to stop at, 0 to ``steps - 1``.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance; at 1 a prediction is one network call per image, otherwise two.
        solver: ``ddim``, ``fixed_point`` or ``midpoint``.
        stride: the largest number of levels from one noise prediction to the next. With ``ddim`` the noise in between is extrapolated: an
            approximation of the path that predicts at every level, not a path on a coarser grid. With ``midpoint`` it is one step.

    Returns:
        Latents [N, C, h, w] at ``level``, in the dtype of ``latents``.

    Raises:
        SettingsError: the level is not on the grid, the solver is unknown, or the stride is below 1 or not 1 with ``fixed_point``, or
            the prior is no flow with ``midpoint``.
        NumericalError: a latent is not finite, or a fixed point is not reached.
    """
    path = inversion_path(prior, latents, labels, level=level, steps=steps, guidance_scale=guidance_scale, solver=solver, stride=stride)
    z = latents
    for z in path:  # noqa: B007
        pass
    return z


def inversion_path(
    prior: SlopePredictor,
    latents: Tensor,
    labels: Condition | Tensor,
    *,
    level: int,
    steps: int,
    guidance_scale: float,
    solver: Solver,
    stride: int,
) -> Iterator[Tensor]:
    """Yield the latents [N, C, h, w] of :func:`invert`, which takes the same arguments, at each of :func:`visited_levels` after level 0."""
    _require_solver(solver)
    if stride < 1 or (stride > 1 and solver == "fixed_point"):
        raise SettingsError("This stride cannot be taken.", found=f"stride {stride}, solver {solver}", hint="use 1, or more with ddim.")
    schedule, grid = prior.schedule, prior.schedule.path(level, steps)

    def predict(z: Tensor, point: Point) -> Tensor:
        return prior.slope(z, point, labels, guidance_scale)

    if solver == "ddim":
        path = _ddim_path(predict, schedule, latents, grid, stride)
    elif solver == "midpoint":
        path = midpoint_path(predict, schedule, latents, [grid[visited] for visited in visited_levels(level, stride)])
    else:
        # Guidance adds g times the rounding error of one prediction and g - 1 times that of another.
        path = _fixed_point_path(predict, schedule, latents, grid, prior.rounding * (abs(guidance_scale) + abs(guidance_scale - 1)))
    for visited, z in zip(visited_levels(level, stride)[1:], path, strict=True):
        check_finite(z, "inversion", f"at level {visited} of {level} (time {grid[visited].t:g})")
        yield z


def denoise(
    prior: SlopePredictor,
    latents: Tensor,
    labels: Condition | Tensor,
    *,
    level: int,
    steps: int = 50,
    guidance_scale: float = 4.0,
    solver: Solver = "ddim",
) -> Tensor:
    """Carry latents from a level down to clean latents, over every level; the slope of the step k -> k-1 is predicted at (z_k, t_k).

    Args:
        prior: the diffusion model.
        latents: latents [N, C, h, w] at ``level``.
        labels: rows [N] of the prior's label table, or the condition of a class (:meth:`Prior.conditions`).
        level: the level of ``latents``, 0 to ``steps - 1``.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance; at 1 a prediction is one network call per image, otherwise two.
        solver: that of the inversion. ``midpoint``, of flows, takes each step at second order; the others' step down is the same one.

    Returns:
        Clean latents [N, C, h, w], in the dtype of ``latents``.

    Raises:
        SettingsError: the level is not on the grid, or the prior is no flow with ``midpoint``.
        NumericalError: a latent is not finite.
    """
    _require_solver(solver)
    schedule, descent = prior.schedule, prior.schedule.path(level, steps)[::-1]

    def predict(z: Tensor, point: Point) -> Tensor:
        return prior.slope(z, point, labels, guidance_scale)

    path = (midpoint_path if solver == "midpoint" else _denoising_path)(predict, schedule, latents, descent)
    z = latents
    for reached, start, z in zip(reversed(range(level)), descent, path, strict=False):
        check_finite(z, "denoising", f"at level {reached}, coming from {level} (time {start.t:g})")
    return z


def forward_noise(schedule: Schedule, latents: Tensor, *, level: int, steps: int, generator: torch.Generator) -> Tensor:
    """Return alpha z + sigma e [N, C, h, w] of clean latents z, with e ~ N(0, I) (DDPM, arXiv 2006.11239, eq. 4).

    The stochastic alternative to inversion: latents of mean m and variance v get mean alpha m and variance alpha^2 v + sigma^2; at level 0
    they stay as they are. ``generator`` draws on the CPU, one latent after the other: noise does not depend on how latents are batched.
    """
    point = schedule.path(level, steps)[-1]
    if level == 0:
        return latents
    # One draw for all would not do: what PyTorch draws depends on how many numbers are asked for at once.
    noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for _ in latents])
    return torch.as_tensor(point.alpha * latents + point.sigma * noise.to(latents))


def calls_per_prediction(guidance_scale: float) -> int:
    """Return the network calls per image of one noise prediction: one without guidance (scale 1), otherwise two."""
    return 1 if guidance_scale == 1 else 2


def num_predictions(level: int, stride: int = 1, solver: Solver = "ddim") -> int:
    """Return the noise predictions of an inversion from level 0 to ``level``, at most ``stride`` levels apart, or of the way back.

    Those of ``fixed_point``, whose number depends on the prior, count as one a level.
    """
    return math.ceil(level / stride) + (solver == "midpoint" and level > 0)


def visited_levels(level: int, stride: int) -> list[int]:
    """Return the levels whose latents an inversion computes, 0 and ``level`` included: at most ``stride`` apart, as even as can be."""
    gaps = math.ceil(level / stride)
    return [0, *(level * gap // gaps for gap in range(1, gaps + 1))]


def check_finite(z: Tensor, work: str, where: str) -> None:
    """Raise :class:`~d3hr.errors.NumericalError` if a value is NaN or infinite; half precision overflows before it errs visibly."""
    if not torch.isfinite(z).all():
        raise NumericalError(
            f"The {work} left the finite numbers.",
            found=f"NaN or infinity {where}",
            hint="load the prior as bf16 or fp32 (--precision), or use a lower guidance.",
        )


def _require_solver(solver: str) -> None:
    if solver not in get_args(Solver):
        raise SettingsError(
            "Unknown solver.", found=repr(solver), hint=f"use {', '.join(get_args(Solver)[:-1])} or {get_args(Solver)[-1]}."
        )


def _denoising_path(predict: Predict, schedule: Schedule, z: Tensor, descent: Sequence[Point]) -> Iterator[Tensor]:
    """Yield z at each point after the first, by steps whose slope is predicted where they start."""
    for start, end in pairwise(descent):
        z = schedule.step(z, predict(z, start), start, end)
        yield z


def _ddim_path(predict: Predict, schedule: Schedule, z: Tensor, grid: Sequence[Point], stride: int) -> Iterator[Tensor]:
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


def _fixed_point_path(predict: Predict, schedule: Schedule, z: Tensor, grid: Sequence[Point], rounding: float) -> Iterator[Tensor]:
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
