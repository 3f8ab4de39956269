"""Domain mapping: carries clean latents up to a noisy level by DDIM inversion, and back down by denoising (D3HR, arXiv 2505.18399).

Level k is the k-th timestep t_k of the sampling grid (:meth:`~d3hr.prior.schedule.Schedule.path`), with signal variance a_k; clean
latents are at level 0. One formula moves between two levels, in both directions (DDIM, arXiv 2010.02502, eq. 12 with sigma = 0):

    z_to = sqrt(a_to) (z_from - sqrt(1 - a_from) eps) / sqrt(a_from) + sqrt(1 - a_to) eps

In x = z / sqrt(a) and s = sqrt((1 - a) / a) it reads x_to = x_from + (s_to - s_from) eps: Euler's method for the probability flow
dx/ds = eps (DDIM, eq. 14).

Legend: N latents, C h w latent axes.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from d3hr.distillation.settings import Solver
from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.schedule import Schedule

MAX_ITERATIONS = 200
"""Iterations of one fixed-point step before it is given up."""

_Predict = Callable[[Tensor, int], Tensor]
"""Gives the noise eps [N, C, h, w] in latents [N, C, h, w] at a training timestep."""
_Grid = Sequence[tuple[int, float]]
"""Timestep and signal variance of each level from 0 up."""


class InexactInversion(UserWarning):
    """Steps of ``fixed_point`` were solved to the rounding of the network, which is coarser than that of the latents."""


class NoisePredictor(Protocol):
    """The part of a prior that inversion and denoising use."""

    schedule: Schedule

    @property
    def rounding(self) -> float:
        """Relative rounding error of its arithmetic, such as 7.8e-3 for bfloat16 (``torch.finfo(...).eps``)."""

    def predict_noise(self, latents: Tensor, timestep: int, labels: Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Return the noise [N, C, h, w] in ``latents`` [N, C, h, w] at a training timestep, under the conditioning ids ``labels`` [N]."""


def ddim_step(z: Tensor, eps: Tensor, alpha_from: float, alpha_to: float) -> Tensor:
    """Move latents [N, C, h, w] with noise ``eps`` from signal variance ``alpha_from`` to ``alpha_to``, both in (0, 1] (DDIM, eq. 12)."""
    clean = (z - (1 - alpha_from) ** 0.5 * eps) / alpha_from**0.5
    return torch.as_tensor(alpha_to**0.5 * clean + (1 - alpha_to) ** 0.5 * eps)


def invert(
    prior: NoisePredictor,
    latents: Tensor,
    labels: Tensor,
    *,
    level: int,
    steps: int = 50,
    guidance_scale: float = 4.0,
    solver: Solver = "ddim",
    stride: int = 1,
) -> Tensor:
    """Carry clean latents up to a level.

    ``ddim`` takes the step k-1 -> k with the noise predicted at (z_{k-1}, t_k), as D3HR does. ``fixed_point`` solves each step for the
    z_k that :func:`denoise` leads back to z_{k-1}, so that the round trip is exact to rounding, at several predictions a step. Behind a
    network of lower precision than the latents a step ends where the network's own rounding lets it: an :class:`InexactInversion` then
    says how far from exact the steps are.

    Args:
        prior: the diffusion model.
        latents: clean latents [N, C, h, w], at level 0.
        labels: conditioning ids [N].
        level: the level to stop at, 0 to ``steps - 1``.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance; at 1 a prediction is one network call per image, otherwise two.
        solver: ``ddim`` or ``fixed_point``.
        stride: with ``ddim``, the largest number of levels from one noise prediction to the next. The noise in between is
            extrapolated: an approximation of the path that predicts at every level, not a path on a coarser grid.

    Returns:
        Latents [N, C, h, w] at ``level``, in the dtype of ``latents``.

    Raises:
        SettingsError: the level is not on the grid, the solver is unknown, or the stride is below 1 or not 1 with ``fixed_point``.
        NumericalError: a latent is not finite, or a fixed point is not reached.
    """
    path = inversion_path(prior, latents, labels, level=level, steps=steps, guidance_scale=guidance_scale, solver=solver, stride=stride)
    z = latents
    for z in path:  # noqa: B007
        pass
    return z


def inversion_path(
    prior: NoisePredictor, latents: Tensor, labels: Tensor, *, level: int, steps: int, guidance_scale: float, solver: Solver, stride: int
) -> Iterator[Tensor]:
    """Yield the latents [N, C, h, w] of :func:`invert`, which takes the same arguments, at each of :func:`visited_levels` after level 0."""
    if solver not in ("ddim", "fixed_point"):
        raise SettingsError("Unknown solver.", found=repr(solver), hint="use ddim or fixed_point.")
    if stride < 1 or (stride > 1 and solver == "fixed_point"):
        raise SettingsError("This stride cannot be taken.", found=f"stride {stride}, solver {solver}", hint="use 1, or more with ddim.")
    grid = prior.schedule.path(level, steps)

    def predict(z: Tensor, timestep: int) -> Tensor:
        return prior.predict_noise(z, timestep, labels, guidance_scale)

    if solver == "ddim":
        path = _ddim_path(predict, latents, grid, stride)
    else:
        # Guidance adds g times the rounding error of one prediction and g - 1 times that of another.
        path = _fixed_point_path(predict, latents, grid, prior.rounding * (abs(guidance_scale) + abs(guidance_scale - 1)))
    for visited, z in zip(visited_levels(level, stride)[1:], path, strict=True):
        check_finite(z, "inversion", f"at level {visited} of {level} (timestep {grid[visited][0]})")
        yield z


def denoise(prior: NoisePredictor, latents: Tensor, labels: Tensor, *, level: int, steps: int = 50, guidance_scale: float = 4.0) -> Tensor:
    """Carry latents from a level down to clean latents; the noise of the step k -> k-1 is predicted at (z_k, t_k).

    Args:
        prior: the diffusion model.
        latents: latents [N, C, h, w] at ``level``.
        labels: conditioning ids [N].
        level: the level of ``latents``, 0 to ``steps - 1``.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance; at 1 a prediction is one network call per image, otherwise two.

    Returns:
        Clean latents [N, C, h, w], in the dtype of ``latents``.

    Raises:
        SettingsError: the level is not on the grid.
        NumericalError: a latent is not finite.
    """
    z = latents
    descent = pairwise(reversed(prior.schedule.path(level, steps)))
    for reached, ((timestep, alpha_from), (_, alpha_to)) in zip(reversed(range(level)), descent, strict=True):
        z = ddim_step(z, prior.predict_noise(z, timestep, labels, guidance_scale), alpha_from, alpha_to)
        check_finite(z, "denoising", f"at level {reached}, coming from {level} (timestep {timestep})")
    return z


def forward_noise(schedule: Schedule, latents: Tensor, *, level: int, steps: int, generator: torch.Generator) -> Tensor:
    """Return sqrt(a) z + sqrt(1 - a) e [N, C, h, w] of clean latents z, with e ~ N(0, I) (DDPM, arXiv 2006.11239, eq. 4).

    The stochastic alternative to inversion: latents of mean m and variance v get mean sqrt(a) m and variance a v + 1 - a; at level 0 they
    stay as they are. ``generator`` draws on the CPU, one latent after the other, so that noise does not depend on how latents are batched.
    """
    _, alpha = schedule.path(level, steps)[-1]
    if level == 0:
        return latents
    # One draw for all would not do: what PyTorch draws depends on how many numbers are asked for at once.
    noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for _ in latents])
    return torch.as_tensor(alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise.to(latents))


def calls_per_prediction(guidance_scale: float) -> int:
    """Return the network calls per image of one noise prediction: one without guidance (scale 1), otherwise two."""
    return 1 if guidance_scale == 1 else 2


def num_predictions(level: int, stride: int) -> int:
    """Return the noise predictions of a ``ddim`` inversion from level 0 to ``level``, at most ``stride`` levels apart."""
    return math.ceil(level / stride)


def visited_levels(level: int, stride: int) -> list[int]:
    """Return the levels whose latents an inversion computes, 0 and ``level`` included: at most ``stride`` apart, as even as can be."""
    gaps = num_predictions(level, stride)
    return [0, *(level * gap // gaps for gap in range(1, gaps + 1))]


def check_finite(z: Tensor, work: str, where: str) -> None:
    """Raise :class:`~d3hr.errors.NumericalError` if a value is NaN or infinite; half precision overflows before it errs visibly."""
    if not torch.isfinite(z).all():
        raise NumericalError(
            f"The {work} left the finite numbers.",
            found=f"NaN or infinity {where}",
            hint="load the prior as bf16 or fp32 (--precision), or use a lower guidance.",
        )


def _ddim_path(predict: _Predict, z: Tensor, grid: _Grid, stride: int) -> Iterator[Tensor]:
    """Yield z at each visited level after 0.

    A stride from level i to j is one step with the mean over its levels k of eps_k, weighted by s_k - s_{k-1}. Only eps_{i+1} is
    predicted; the others lie on the line, over s, through it and the prediction of the stride before. That line has its mean at
    s_{i+1} + ahead, with ahead = sum_k (s_k - s_{k-1}) (s_k - s_{i+1}) / (s_j - s_i). The first stride has only its own prediction.
    """
    timesteps, alphas = zip(*grid, strict=True)
    s = [((1 - alpha) / alpha) ** 0.5 for alpha in alphas]
    previous: tuple[float, Tensor] | None = None
    for i, j in pairwise(visited_levels(len(grid) - 1, stride)):
        eps = mean_eps = predict(z, timesteps[i + 1])
        if previous is not None and j > i + 1:
            ahead = sum((s[k] - s[k - 1]) * (s[k] - s[i + 1]) for k in range(i + 1, j + 1)) / (s[j] - s[i])
            previous_s, previous_eps = previous
            mean_eps = eps + (eps - previous_eps) * (ahead / (s[i + 1] - previous_s))
        z = ddim_step(z, mean_eps, alphas[i], alphas[j])
        previous = s[i + 1], eps
        yield z


def _fixed_point_path(predict: _Predict, z: Tensor, grid: _Grid, rounding: float) -> Iterator[Tensor]:
    """Yield z at each level after 0: the solution of z_k = ddim_step(z_{k-1}, eps(z_k, t_k)), which undoes the denoising step from z_k.

    ``rounding`` is the relative error of eps.
    """
    largest = 0.0
    for (_, alpha_from), (timestep, alpha_to) in pairwise(grid):
        z, stalled_at = _fixed_point_step(predict, z, timestep, alpha_from, alpha_to, rounding)
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
    predict: _Predict, start: Tensor, timestep: int, alpha_from: float, alpha_to: float, rounding: float
) -> tuple[Tensor, float]:
    """Solve z = ddim_step(start, eps(z, t)) by relaxed iteration from the ``ddim`` step; the relaxation is halved when the residual grows.

    The root mean square residual must fall to 8 units of rounding of z's own. One that no longer falls is accepted, and returned with z,
    if it is within 8 units of rounding of eps, times the weight that eps has in the step; else the second value is 0.
    """
    eps = predict(start, timestep)
    z = ddim_step(start, eps, alpha_from, alpha_to)
    tolerance = 8 * torch.finfo(z.dtype).eps * _rms(z)
    weight = abs((1 - alpha_to) ** 0.5 - (alpha_to * (1 - alpha_from) / alpha_from) ** 0.5)
    allowed = 8 * rounding * weight * _rms(eps)
    relaxation, last_residual = 1.0, float("inf")
    best, best_residual = z, float("inf")
    for _ in range(MAX_ITERATIONS):
        change = ddim_step(start, predict(z, timestep), alpha_from, alpha_to) - z
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
        found=f"residual {best_residual:.2e} after {MAX_ITERATIONS} iterations at timestep {timestep}",
        hint="use more --steps, a lower inversion guidance, or --solver ddim.",
    )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
