"""Walks latents along the deterministic diffusion path: inversion towards noise, denoising back.

Level k is the k-th point of the grid that :meth:`d3hr.prior.schedule.Schedule.grid` gives; clean latents stand at level 0. One
formula moves between levels, both ways (DDIM, arXiv 2010.02502, eq. 12 with sigma = 0; D3HR, arXiv 2505.18399, domain mapping).

In x = z / sqrt(a) and s = sqrt((1 - a) / a) that formula is Euler's step for dx/ds = eps, the probability flow (DDIM, eq. 14). What
follows the flow at a higher order needs fewer steps.

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from d3hr.errors import NumericalError, SettingsError
from d3hr.prior.model import Prior
from d3hr.prior.schedule import Schedule

Solver = Literal["ddim", "fixed_point", "multistep"]
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
    stride: int = 1,
) -> Tensor:
    """Carry clean latents up to a level.

    ``ddim`` predicts the noise of the step k-1 -> k at (z_{k-1}, t_k). Over a stride it predicts that of the first step, and takes the
    noise of the others on the line through this and the last prediction: an estimate of the walk that visits every level, not a coarser
    walk. ``fixed_point`` solves for the z_k whose own denoising step
    leads back to z_{k-1}, so that :func:`denoise` undoes it to the precision of the arithmetic. ``multistep`` follows the probability
    flow at second order for one prediction a step (Adams and Bashforth; as PNDM, arXiv 2202.09778, and DEIS, arXiv 2204.13902, do).

    Args:
        prior: the diffusion model.
        latents: clean latents [N, C, h, w] at level 0.
        labels: conditioning ids [N].
        level: where to stop, 0 to ``steps - 1``.
        steps: points of the grid.
        guidance_scale: classifier-free guidance; at 1 the network runs once an image, else twice.
        solver: ``ddim``, ``fixed_point`` or ``multistep``.
        stride: levels from one prediction to the next, at most (see :func:`visited_levels`).

    Returns:
        Latents [N, C, h, w] at ``level``, in the dtype of ``latents``.

    Raises:
        SettingsError: the level is not on the grid, the solver is unknown, or it cannot take strides.
        NumericalError: a latent is not finite, or the fixed point is not reached.
    """
    z = latents
    for z in inversion_path(  # noqa: B007
        prior, latents, labels, level=level, steps=steps, guidance_scale=guidance_scale, solver=solver, stride=stride
    ):
        pass
    return z


def predictions_of(level: int, stride: int) -> int:
    """Return how many noise predictions carry latents from level 0 to ``level``, at most ``stride`` levels apart."""
    return math.ceil(level / stride)


def visited_levels(level: int, stride: int) -> list[int]:
    """Return the levels that inversion stands on, from 0 to ``level``: as evenly spread as can be, at most ``stride`` apart."""
    gaps = predictions_of(level, stride)
    return [0, *(level * gap // gaps for gap in range(1, gaps + 1))]


def inversion_path(
    prior: NoisePredictor,
    latents: Tensor,
    labels: Tensor,
    *,
    level: int,
    steps: int,
    guidance_scale: float,
    solver: Solver,
    stride: int = 1,
) -> Iterator[Tensor]:
    """Yield what :func:`invert` finds at each of :func:`visited_levels` after level 0, one after the other."""
    if solver not in ("ddim", "fixed_point", "multistep"):
        raise SettingsError("Unknown solver.", found=repr(solver), hint="use ddim, fixed_point or multistep.")
    if stride < 1 or (stride > 1 and solver == "fixed_point"):
        raise SettingsError(
            "This stride cannot be taken.", found=f"stride {stride}, solver {solver}", hint="use 1, or more with ddim or multistep."
        )
    timesteps, alphas = zip(*prior.schedule.path(level, steps), strict=True)
    ratios = [((1 - alpha) / alpha) ** 0.5 for alpha in alphas]
    z, before = latents, None
    for left, reached in pairwise(visited_levels(level, stride)):
        start, asked = z, left if solver == "multistep" else left + 1
        # Clean latents have the signal variance of timestep 0, whatever the grid begins with.
        eps = prior.predict_noise(start, timesteps[asked] if asked else 0, labels, guidance_scale)
        here = _Slope(ratios[asked], eps)
        ahead = _half_way(ratios, left, reached) if solver == "multistep" else _mean_ahead(ratios, left, reached)
        z = ddim_step(start, here.extrapolated(ahead, before), alphas[left], alphas[reached])
        if solver == "fixed_point":
            z = _fixed_point(prior, start, z, labels, guidance_scale, timesteps[reached], alphas[left], alphas[reached])
        check_finite(z, "inversion", f"at level {reached} of {level} (timestep {timesteps[reached]})")
        before = here
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
            hint="load the prior as bf16 or fp32 (--precision), or use a lower guidance.",
        )


@dataclass(frozen=True)
class _Slope:
    """The slope dx/ds = ``eps`` [N, C, h, w] of the walk, as predicted for ``s``."""

    s: float
    eps: Tensor

    def extrapolated(self, ahead: float, before: _Slope | None) -> Tensor:
        """Return the slope at ``s + ahead``, on the line through the one before and this one.

        The first step has no other slope than this one. Made once, its error is of second order all the same.
        """
        if before is None or ahead == 0:
            return self.eps
        return self.eps + (self.eps - before.eps) * (ahead / (self.s - before.s))


def _half_way(ratios: Sequence[float], left: int, reached: int) -> float:
    """Return how far the middle of a step lies ahead of its beginning: there a line has its mean over the step."""
    return (ratios[reached] - ratios[left]) / 2


def _mean_ahead(ratios: Sequence[float], left: int, reached: int) -> float:
    """Return how far ahead of level ``left + 1`` a line has its mean over the steps from level to level, each predicted at its end."""
    if reached == left + 1:
        return 0.0
    levels = range(left + 1, reached + 1)
    moment = sum((ratios[level] - ratios[level - 1]) * (ratios[level] - ratios[left + 1]) for level in levels)
    return moment / (ratios[reached] - ratios[left])


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
        hint="use more --steps, a lower inversion guidance, or --solver ddim.",
    )


def forward_noise(schedule: Schedule, latents: Tensor, *, level: int, steps: int, generator: torch.Generator) -> Tensor:
    """Return sqrt(a) z + sqrt(1 - a) e of clean latents z [N, C, h, w], with e ~ N(0, I) (DDPM, arXiv 2006.11239, eq. 4).

    Latents of mean m and variance v then have mean sqrt(a) m and variance a v + 1 - a. At level 0 clean latents stay as they are.

    Args:
        schedule: the prior's schedule, which gives the signal variance a of the level.
        latents: clean latents.
        level: where to carry them, 0 to ``steps - 1``.
        steps: points of the grid.
        generator: gives the noise, one latent after the other, so that it does not depend on how they are batched.

    Raises:
        SettingsError: the level is not on the grid.
    """
    _, alpha = schedule.path(level, steps)[-1]
    if level == 0:
        return latents
    # One draw for all would not do: what PyTorch draws depends on how many numbers are asked for at once.
    noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for _ in latents])
    return torch.as_tensor(alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise.to(latents))


def draw_images(
    prior: Prior, latents: Tensor, conditioning_id: int, *, level: int, steps: int, guidance_scale: float, batch_size: int = 64
) -> Tensor:
    """Return images float [K, 3, H, W] in [-1, 1] (on the CPU) of latents [K, C, h, w] of one class.

    Args:
        prior: the diffusion prior.
        latents: latents at ``level``.
        conditioning_id: row of the prior's label table.
        level: where the latents stand.
        steps: points of the sampling grid.
        guidance_scale: classifier-free guidance.
        batch_size: images in one network call.

    Raises:
        NumericalError: a latent or a pixel is not finite.
    """
    pictures = []
    for noisy in latents.split(batch_size):
        labels = torch.full((len(noisy),), conditioning_id)
        clean = denoise(prior, noisy.to(prior.device), labels, level=level, steps=steps, guidance_scale=guidance_scale)
        pictures.append(prior.decode(clean).cpu())
        check_finite(pictures[-1], "decoding", "in its pixels")
    return torch.cat(pictures)
