"""Walks latents along the deterministic diffusion path: inversion towards noise, denoising back.

Level k is the k-th point of the grid that :meth:`d3hr.prior.schedule.Schedule.grid` gives; clean latents stand at level 0. One
formula moves between levels, both ways (DDIM, arXiv 2010.02502, eq. 12 with sigma = 0; D3HR, arXiv 2505.18399, domain mapping).

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.schedule import Schedule

Solver = Literal["ddim", "fixed_point"]
MAX_ITERATIONS = 200


class NoisePredictor(Protocol):
    """What the walk needs of a prior."""

    schedule: Schedule

    def predict_noise(self, latents: Tensor, timestep: int, labels: Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Return the noise [N, C, h, w] in ``latents`` at a training timestep."""


def calls_of_prediction(guidance_scale: float) -> int:
    """Return how often the network runs for one image in one prediction: once without guidance, else twice."""
    return 1 if guidance_scale == 1 else 2


def ddim_step(z: Tensor, eps: Tensor, alpha_from: float, alpha_to: float) -> Tensor:
    """Move latents [N, C, h, w] with noise ``eps`` from signal variance ``alpha_from`` to ``alpha_to`` (both in (0, 1])."""
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
) -> Tensor:
    """Carry clean latents up to a level.

    ``ddim`` predicts the noise of the step k-1 -> k at (z_{k-1}, t_k). ``fixed_point`` solves for the z_k whose own denoising step
    leads back to z_{k-1}, so that :func:`denoise` undoes it to the precision of the arithmetic.

    Args:
        prior: the diffusion model.
        latents: clean latents [N, C, h, w] at level 0.
        labels: conditioning ids [N].
        level: where to stop, 0 to ``steps - 1``.
        steps: points of the grid.
        guidance_scale: classifier-free guidance; at 1 the network runs once an image, else twice.
        solver: ``ddim`` or ``fixed_point``.

    Returns:
        Latents [N, C, h, w] at ``level``, in the dtype of ``latents``.

    Raises:
        SettingsError: the level is not on the grid, or the solver is unknown.
        NumericalError: a latent is not finite, or the fixed point is not reached.
    """
    z = latents
    for z in inversion_path(prior, latents, labels, level=level, steps=steps, guidance_scale=guidance_scale, solver=solver):  # noqa: B007
        pass
    return z


def inversion_path(
    prior: NoisePredictor, latents: Tensor, labels: Tensor, *, level: int, steps: int, guidance_scale: float, solver: Solver
) -> Iterator[Tensor]:
    """Yield what :func:`invert` finds at levels 1 to ``level``, one after the other."""
    if solver not in ("ddim", "fixed_point"):
        raise SettingsError("Unknown solver.", found=repr(solver), do="use ddim or fixed_point.")
    z = latents
    for reached, ((_, alpha_from), (timestep, alpha_to)) in enumerate(pairwise(prior.schedule.path(level, steps)), start=1):
        start = z
        z = ddim_step(start, prior.predict_noise(start, timestep, labels, guidance_scale), alpha_from, alpha_to)
        if solver == "fixed_point":
            z = _fixed_point(prior, start, z, labels, guidance_scale, timestep, alpha_from, alpha_to)
        check_finite(z, "inversion", f"at level {reached} of {level} (timestep {timestep})")
        yield z


def denoise(prior: NoisePredictor, latents: Tensor, labels: Tensor, *, level: int, steps: int = 50, guidance_scale: float = 4.0) -> Tensor:
    """Carry latents [N, C, h, w] from a level down to clean latents; the noise of the step k -> k-1 is predicted at (z_k, t_k).

    Args:
        prior: the diffusion model.
        latents: latents [N, C, h, w] at ``level``.
        labels: conditioning ids [N].
        level: where the latents stand, 0 to ``steps - 1``.
        steps: points of the grid.
        guidance_scale: classifier-free guidance; at 1 the network runs once an image, else twice.

    Raises:
        SettingsError: the level is not on the grid.
        NumericalError: a latent is not finite.
    """
    path = prior.schedule.path(level, steps)[::-1]
    z = latents
    for done, ((timestep, alpha_from), (_, alpha_to)) in enumerate(pairwise(path), start=1):
        z = ddim_step(z, prior.predict_noise(z, timestep, labels, guidance_scale), alpha_from, alpha_to)
        check_finite(z, "denoising", f"at level {level - done}, coming from {level} (timestep {timestep})")
    return z


def check_finite(z: Tensor, work: str, where: str) -> None:
    """Raise :class:`NumericalError` if a value is NaN or infinite: half precision overflows before it errs visibly."""
    if not torch.isfinite(z).all():
        raise NumericalError(
            f"The {work} left the finite numbers.",
            found=f"NaN or infinity {where}",
            do="load the prior as bf16 or fp32 (--precision), or use a lower guidance.",
        )


def _fixed_point(
    prior: NoisePredictor,
    start: Tensor,
    z: Tensor,
    labels: Tensor,
    guidance_scale: float,
    timestep: int,
    alpha_from: float,
    alpha_to: float,
) -> Tensor:
    """Solve z = ddim_step(start, eps(z, t)) by relaxed iteration; the relaxation is halved whenever the residual grows."""
    tolerance = 8 * torch.finfo(z.dtype).eps * float(z.square().mean().sqrt())
    relaxation, before = 1.0, float("inf")
    for _ in range(MAX_ITERATIONS):
        step = ddim_step(start, prior.predict_noise(z, timestep, labels, guidance_scale), alpha_from, alpha_to) - z
        residual = float(step.square().mean().sqrt())
        z = z + relaxation * step
        if residual <= tolerance:
            return z
        if residual > before:
            relaxation /= 2
        before = residual
    raise NumericalError(
        "The exact inversion step was not reached.",
        found=f"residual {before:.2e} after {MAX_ITERATIONS} iterations at timestep {timestep}",
        do="use more --steps, a lower inversion guidance, or --solver ddim.",
    )
