"""Whether inversion finds noise that is the prior's own: the interpolation test of arXiv 2606.03111.

A round trip says whether an image comes back. It does not say whether what it came back from is noise as the prior draws it. Where it is
not, images that are denoised from *between* two inverted latents of a class show nothing, and those drawn from a Gaussian of inverted
latents do not either. The test is whether such images overlap with real ones as images from the prior's own noise do.

Legend: N latents, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.diagnostics.checks import Status, Verdict, graded, worst_of
from d3hr.diagnostics.gate import CLASSES, LEAST
from d3hr.diagnostics.neighbours import Support, support
from d3hr.diagnostics.spaces import feature_space
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import generate_images, invert_by_settings
from d3hr.errors import NumericalError
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import Prior
from d3hr.seeds import generator_for

SIGNATURE = "inexact inversion"
INVERTED, COMPARED = 100, 200
"""Images that are inverted, and real images that the results are compared with, at most: 15,000 network calls on a grid of 50 steps with
guidance in inversion, 10,000 without."""
_BATCH = 8
"""Images that are inverted or denoised at a time, as in the round trip."""
BETWEEN_WARNING, BETWEEN_FAILURE = 0.8, 0.5
"""Precision and coverage as a share of those of images from drawn noise. On digits behind a prior fitted for 20 minutes they are 0.99 to
1.01 without guidance in inversion; coverage is 0.70 with guidance 2, and both are 0.07 with 4, whose latents are twice as large."""


@dataclass(frozen=True)
class Interpolation:
    """How images from between two inverted latents of a class overlap with real images, next to as many from the prior's own noise.

    Attributes:
        between: overlap of images from the middle between inverted latents.
        noise: overlap of images from noise that is drawn.
        spread: root mean square of inverted latents, as a share of that of drawn noise; 1 where they are noise.
        images: number of images of each kind.
        error: why there are no figures, if inversion was not possible.
    """

    between: Support = field(default_factory=Support)
    noise: Support = field(default_factory=Support)
    spread: float | None = None
    images: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Interpolating:
    """Inverts images of a class to a level and denoises from between them, as work whose tasks are classes.

    Attributes:
        images: real images at the prior's size.
        prior: the prior.
        settings: those of the set.
        level: the level.
        most: real images of a class to compare with, at most.
        inverted: images of a class to invert, at most.
        seed: seed of sample and noise.
    """

    images: ImageData
    prior: Prior
    settings: DistillSettings
    level: int
    most: int
    inverted: int
    seed: int

    def open(self) -> Callable[[Conditioning], tuple[Tensor, Tensor, Tensor, float] | str]:
        """Return the function that gives real images of a class, those from between inverted latents, as many from noise, and the mean
        square of inverted latents; or why it could not.
        """
        return self._sample

    def _sample(self, match: Conditioning) -> tuple[Tensor, Tensor, Tensor, float] | str:
        prior, settings, name = self.prior, self.settings, match.class_name
        count = min(self.most, self.images.counts[name] // 2)
        order = torch.randperm(self.images.counts[name], generator=generator_for(self.seed, "interpolation", name))[: 2 * count]
        of_class, made = self.images.pick(name, order), list[Tensor]()
        condition = prior.denoiser.conditions([match])[name]
        others = of_class[count:][: self.inverted].split(_BATCH)
        try:
            with NumericalError.naming(name):
                inverted = torch.cat([invert_by_settings(prior, prior.encode(part), condition, settings, self.level) for part in others])
                generator = generator_for(self.seed, "interpolation noise", name)
                noise = torch.randn(inverted.shape, generator=generator) * prior.schedule.noise_scale
                for latents in (spherical_middle(inverted, inverted.roll(1, dims=0)), noise):
                    pictures = generate_images(
                        prior,
                        latents,
                        condition,
                        level=self.level,
                        steps=settings.steps,
                        guidance_scale=1.0,
                        batch_size=_BATCH,
                        solver=settings.solver,
                    )
                    made.append(pictures)
        except NumericalError as error:
            return f"{error.what} {error.found}"
        between, drawn = made
        return of_class[:count].clone(), between, drawn, float(inverted.square().mean())


def interpolation_test(
    images: ImageData,
    prior: Prior,
    conditioning: Sequence[Conditioning],
    settings: DistillSettings,
    teacher: Teacher | None = None,
    seed: int = 0,
    execution: Execution = SERIAL,
) -> Interpolation | None:
    """Invert real images of the classes to noise, with guidance, solver and grid of the settings, and denoise from between every two.

    Denoising has no guidance, which makes images typical whatever they start from. Images are compared in the teacher's features, or
    else in the prior's latents. None where nothing is inverted, or there are too few images.

    Args:
        images: real images at the prior's size.
        prior: the prior.
        conditioning: what the prior is given for each of the classes.
        settings: those of the set.
        teacher: a network trained on such images.
        seed: seed of sample and noise.
        execution: where images are inverted and denoised, each class a task.
    """
    places = np.linspace(0, len(conditioning) - 1, min(CLASSES, len(conditioning))).round().astype(int)
    chosen = [conditioning[place] for place in places]
    most = COMPARED // len(chosen)
    if settings.inversion_level == 0 or sum(min(most, images.counts[match.class_name] // 2) for match in chosen) < LEAST:
        return None
    level = settings.steps - 1 if prior.schedule.points(settings.steps)[-1].alpha > 0 or prior.schedule.kappa else settings.steps - 2
    work = Interpolating(images, prior, settings, level, most, max(2, INVERTED // len(chosen)), seed)
    found = dict(execution.run(work, [match for match in chosen if images.counts[match.class_name] >= 4]))
    samples = [found[index] for index in range(len(found))]
    for sample in samples:
        if isinstance(sample, str):
            return Interpolation(error=sample)
    real, between, drawn, squares = zip(*(sample for sample in samples if not isinstance(sample, str)), strict=True)
    space = feature_space(prior=prior, teacher=teacher)
    points, ours, theirs = (space.points(torch.cat(kind)) for kind in (real, between, drawn))
    spread = float(np.mean(squares)) ** 0.5 / prior.schedule.noise_scale
    return Interpolation(support(points, ours), support(points, theirs), spread, len(ours))


def spherical_middle(a: Tensor, b: Tensor) -> Tensor:
    """Return the latents in the middle of the arcs from ``a`` to ``b`` [N, C, h, w], of the mean of their norms."""
    norms = [each.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for each in (a, b)]
    middle = a / norms[0] + b / norms[1]
    return torch.as_tensor(middle / middle.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * (norms[0] + norms[1]) / 2)


def inexact_inversion(found: Interpolation) -> Verdict:
    """Check whether images from between inverted latents overlap with real ones as those from the prior's own noise do."""
    if found.error is not None:
        return Verdict(SIGNATURE, "failure", f"Real images cannot be inverted to noise with these settings. {_REMEDY}", found.error)
    statuses: list[Status] = []
    evidence = []
    for name in ("precision", "coverage"):
        ours, theirs = getattr(found.between, name), getattr(found.noise, name)
        if theirs:
            statuses.append(graded(-ours / theirs, -BETWEEN_WARNING, -BETWEEN_FAILURE))
            evidence.append(f"{name} {ours:.2f} (from drawn noise {theirs:.2f})")
    if not statuses:
        return Verdict(SIGNATURE, "unknown", "No image from the prior's own noise is like a real one.", "; ".join(evidence) or "no figures")
    status = worst_of(statuses)
    text = {
        "ok": "Images from between inverted latents are as good as those from the prior's own noise: inversion finds noise.",
        "warning": "Images from between inverted latents are worse than those from the prior's own noise, which inversion does not quite "
        f"find. {_REMEDY}",
        "failure": f"Images from between inverted latents are unlike real ones: inversion does not find the prior's noise. {_REMEDY}",
    }[status]
    figures = f"{found.images} images from between inverted latents: {'; '.join(evidence)}"
    return Verdict(SIGNATURE, status, text, f"{figures}; inverted latents are {found.spread:.2f} times as large as noise")


_REMEDY = "Invert without guidance (--inversion-guidance 1), in more --steps, or at a lower --level."
