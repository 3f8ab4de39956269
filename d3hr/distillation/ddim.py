"""Domain mapping: carries clean latents up to a noisy level by inversion, and back down by denoising (D3HR, arXiv 2505.18399).

Level k is the k-th point of the prior's grid, of time t_k (:meth:`~d3hr.prior.schedules.schedule.Schedule.path`); clean latents are at
level 0. Both directions take the same step (:meth:`~d3hr.prior.schedules.schedule.Schedule.step`): DDIM's (arXiv 2010.02502, eq. 12 with
sigma = 0) where the prior predicts noise, Euler's where it predicts a velocity.

Legend: N latents, C h w latent axes.
"""

import math
from collections.abc import Iterator
from typing import Protocol, get_args

import torch
from torch import Tensor

from d3hr.distillation.settings import Solver
from d3hr.distillation.solvers import ddim_path, denoising_path, fixed_point_path, midpoint_path, visited_levels
from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.conditions import Condition
from d3hr.prior.schedules.schedule import Point, Schedule


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
    schedule, grid, condition = prior.schedule, prior.schedule.path(level, steps), labels.to(latents.device)

    def predict(z: Tensor, point: Point) -> Tensor:
        return prior.slope(z, point, condition, guidance_scale)

    if solver == "ddim":
        path = ddim_path(predict, schedule, latents, grid, stride)
    elif solver == "midpoint":
        path = midpoint_path(predict, schedule, latents, [grid[visited] for visited in visited_levels(level, stride)])
    else:
        # Guidance adds g times the rounding error of one prediction and g - 1 times that of another.
        path = fixed_point_path(predict, schedule, latents, grid, prior.rounding * (abs(guidance_scale) + abs(guidance_scale - 1)))
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
    schedule, descent, condition = prior.schedule, prior.schedule.path(level, steps)[::-1], labels.to(latents.device)

    def predict(z: Tensor, point: Point) -> Tensor:
        return prior.slope(z, point, condition, guidance_scale)

    path = (midpoint_path if solver == "midpoint" else denoising_path)(predict, schedule, latents, descent)
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
