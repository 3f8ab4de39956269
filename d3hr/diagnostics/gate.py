"""Whether a prior is good enough to draw a set from, said before a set is trusted, by three measurements on held-out real images.

What it keeps of a real image (the round trip), how its images overlap with real ones, and how often they show the class that they were
drawn for. The second and third are held against the same figures of as many other real images, so that no limit depends on the data.

Legend: N images, D features.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.diagnostics.checks import LABELS_SEPARATION, PRIOR_FAILURE_DB, PRIOR_WARNING_DB, Status, Verdict, graded, weak_prior, worst_of
from d3hr.diagnostics.neighbours import SUPPORT_NEIGHBOURS, Support, support
from d3hr.diagnostics.roundtrip import RoundTrip, round_trip
from d3hr.diagnostics.spaces import Array, feature_space
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.tasks import generate_images
from d3hr.errors import NumericalError
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.atomic import write_json
from d3hr.fileio.structured import validated_json
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import Prior
from d3hr.prior.repository import Repository
from d3hr.seeds import generator_for

SIGNATURE = "weak prior"
PER_CLASS, IN_ALL, CLASSES = 20, 200, 20
"""Images drawn of a class and of all, at most, and classes, evenly spread: 5,000 network calls, which on one core is 3 to 10 s for
``tiny`` at 8 pixels."""
STEPS = 25
"""Points of the grid of drawing and of the round trip. There is no guidance: it makes images typical, and hides what the prior lacks."""
LEAST = 4 * SUPPORT_NEIGHBOURS
"""Real images that others are compared with, at least: with fewer, the distance to the fifth neighbour is that across the whole set."""
OVERLAP_WARNING, OVERLAP_FAILURE = 0.7, 0.35
"""Precision, coverage and recall as a share of those of as many other real images, below which images fall short, and below which they are
not like real ones. A prior of digits fitted for ten minutes had 0.86 to 1.03; behind the same autoencoder, one fitted for a minute had a
precision of 0.76 and a coverage of 0.61, ones fitted for less 0 to 0.02."""
TRIP_WARNING_DB, TRIP_FAILURE_DB = 20.0, 15.0
"""PSNR of the round trip of real images. An exact prior of Gaussian digits has 32 on this coarse grid, a fitted one 28; one that takes
each class for another 20, and one that knows its training images by heart 14 to 19, for it has no way back to others."""
NAMED_WARNING, NAMED_FAILURE = 0.8, 0.5
"""How often drawn images are given the class that they were drawn for, as a share of how often real images are given theirs, both less what
guessing gives. The same priors of digits had 0.95 to 1.05, and 0."""


@dataclass(frozen=True)
class PriorFigures:
    """What is measured on a prior; a figure is None where there are too few real images, or the classifier tells nothing.

    Attributes:
        trip: fidelity of real images.
        drawn: how drawn images overlap with real ones.
        real: how as many other real images overlap with them.
        named: share, 0 to 1, of drawn images that are given the class that they were drawn for.
        named_real: share, 0 to 1, of real images that are given their class.
        classes: number of classes that are told apart.
    """

    trip: RoundTrip
    drawn: Support = field(default_factory=Support)
    real: Support = field(default_factory=Support)
    named: float | None = None
    named_real: float | None = None
    classes: int = 0


def prior_gate(
    prior: Prior,
    images: ImageData,
    *,
    conditioning: Sequence[Conditioning],
    teacher: Teacher | None = None,
    per_class: int = PER_CLASS,
    seed: int = 0,
    execution: Execution = SERIAL,
) -> Verdict:
    """Say whether a prior is good enough to draw a set from, and what to do where it is not.

    Args:
        prior: the prior.
        images: real images of its classes, best such as it was not fitted to.
        conditioning: the prior's class for each class of the images that it has, at least one.
        teacher: a network trained on real images of these classes, whose features and answers are used; by default images are compared in
            the prior's latents, and named like the nearest of 5 real ones there.
        per_class: images drawn of each class, at most.
        seed: seed of samples and noise.
        execution: where images are drawn, each class a task.
    """
    given: dict[str, Any] = {"conditioning": conditioning, "teacher": teacher, "per_class": per_class, "seed": seed}
    try:
        return judged(measured(prior, images, **given, execution=execution))
    except NumericalError as error:
        return Verdict(SIGNATURE, "failure", f"It computes numbers that are not finite: {error.what} {_REMEDY}", error.found)


def measured(
    prior: Prior,
    images: ImageData,
    *,
    conditioning: Sequence[Conditioning],
    teacher: Teacher | None,
    per_class: int,
    seed: int,
    execution: Execution = SERIAL,
) -> PriorFigures:
    """Return the figures of :func:`prior_gate`, whose arguments these are."""
    images = images.at_size(prior.image_size)
    level = distill_settings("gentle").statistics_level * STEPS // distill_settings("gentle").steps
    trip = round_trip(images, prior, conditioning, distill_settings("gentle", steps=STEPS, level=level))
    chosen = [conditioning[place] for place in np.linspace(0, len(conditioning) - 1, min(CLASSES, len(conditioning))).round().astype(int)]
    most = min(per_class, IN_ALL // len(chosen))
    found = dict(execution.run(GateSampler(prior, images, most, seed), chosen))
    samples = [found[index] for index in range(len(chosen))]
    reference, others, drawn = (torch.cat(parts) for parts in zip(*samples, strict=True))
    if len(reference) < LEAST:
        return PriorFigures(trip)
    labels = np.repeat(np.arange(len(chosen)), [len(mine) for mine, _, _ in samples])
    space = feature_space(prior=prior, teacher=teacher)
    real, theirs, ours = (space.points(pictures) for pictures in (reference, others, drawn))
    if teacher is None:
        named, named_real = (_named_by_neighbours(real, labels, points) for points in (ours, theirs))
    else:
        names = [match.class_name for match in chosen]
        named, named_real = (_named_by(teacher, names, pictures, labels) for pictures in (drawn, others))
    return PriorFigures(trip, support(real, ours), support(real, theirs), named, named_real, len(chosen))


@dataclass(frozen=True)
class GateSampler:
    """Samples real images of a class and draws as many, at most ``most``, as work whose tasks are classes."""

    prior: Prior
    images: ImageData
    most: int
    seed: int

    def open(self) -> Callable[[Conditioning], tuple[Tensor, Tensor, Tensor]]:
        """Return the function that gives real images of a class, as many others, and as many drawn ones, float [n, 3, H, W] in [-1, 1]."""
        return self._sample

    def _sample(self, match: Conditioning) -> tuple[Tensor, Tensor, Tensor]:
        prior, images, name = self.prior, self.images, match.class_name
        count = min(self.most, images.counts[name] // 2)
        if count == 0:
            nothing = torch.empty(0, 3, prior.image_size, prior.image_size)
            return nothing, nothing, nothing
        order = torch.randperm(images.counts[name], generator=generator_for(self.seed, "gate", name))
        real = images.pick(name, order[: 2 * count])
        noise = prior.schedule.noise_scale * torch.randn(count, *prior.latent_shape, generator=generator_for(self.seed, "gate noise", name))
        condition = prior.denoiser.conditions([match])[name]
        with NumericalError.naming(name):
            drawn = generate_images(prior, noise, condition, level=STEPS - 1, steps=STEPS, guidance_scale=1.0)
        return real[:count], real[count:], drawn


def _named_by_neighbours(real: Array, labels: Array, points: Array) -> float:
    """Return the share of points [N, D] whose label, one of ``labels`` [N], is that of most of their nearest real points [N, D]."""
    from sklearn.neighbors import KNeighborsClassifier

    return float(KNeighborsClassifier(SUPPORT_NEIGHBOURS).fit(real, labels).score(points, labels))


def _named_by(teacher: Teacher, names: Sequence[str], pictures: Tensor, labels: Array) -> float:
    """Return the share of images whose label is the most likely of the named classes."""
    return float((teacher.logits(pictures, names).argmax(dim=1).cpu().numpy() == labels).mean())


_REMEDY = (
    "Choose real images instead: distil with --candidates real. Or fit the prior for longer, at a smaller --image-size, or take a "
    "pretrained one."
)


def judged(figures: PriorFigures) -> Verdict:
    """Return the verdict that follows from the figures; the worst of them decides, and every bad one is named."""
    found: list[tuple[Status, str]] = []
    evidence = []
    trip = figures.trip
    if trip.psnr_db is not None and trip.autoencoder_psnr_db is not None:
        blurred = graded(-trip.autoencoder_psnr_db, -PRIOR_WARNING_DB, -PRIOR_FAILURE_DB)
        found.append((blurred, "the autoencoder turns real images into blurs" if blurred == "failure" else "the autoencoder loses details"))
        if blurred == "ok":
            lost = graded(-trip.psnr_db, -TRIP_WARNING_DB, -TRIP_FAILURE_DB)
            found.append((lost, "real images do not come back from inversion and denoising"))
        both = f"{trip.psnr_db:.1f} dB, the autoencoder alone {trip.autoencoder_psnr_db:.1f} dB"
        evidence.append(f"round trip of {trip.images} real images {both}")
    for name, says in _OVERLAP.items():
        ours, theirs = getattr(figures.drawn, name), getattr(figures.real, name)
        if ours is not None and theirs:
            found.append((graded(-ours / theirs, -OVERLAP_WARNING, -OVERLAP_FAILURE), says))
            evidence.append(f"{name} {ours:.2f} (other real images {theirs:.2f})")
    if figures.named is not None and figures.named_real is not None and figures.classes > 1:
        guess = 1 / figures.classes
        told, told_real = ((share - guess) / (1 - guess) for share in (figures.named, figures.named_real))
        clear = told_real >= LABELS_SEPARATION
        if clear:
            found.append((graded(-told / told_real, -NAMED_WARNING, -NAMED_FAILURE), "what it draws often shows another class"))
        share = f"{100 * figures.named:.0f} % of drawn images are given their class, {100 * figures.named_real:.0f} % of real ones"
        evidence.append(share if clear else f"{share}, which is too few to say anything")
    if not found:
        return Verdict(SIGNATURE, "unknown", "There are too few real images to judge the prior by.", "no figures")
    status = worst_of([each for each, _ in found])
    reasons = ", ".join(says for each, says in found if each != "ok")
    text = {
        "ok": "It keeps what is in real images, and what it draws is like them: a set may be drawn from it.",
        "warning": f"It falls short of real images: {reasons}. Compare a set with a choice of real images (--candidates real).",
        "failure": f"It is not good enough to draw a set from: {reasons}. {_REMEDY}",
    }[status]
    return Verdict(SIGNATURE, status, text, "; ".join(evidence))


_OVERLAP = {
    "precision": "what it draws is unlike any real image",
    "coverage": "what it draws lies near few of the real images",
    "recall": "what it draws is all of one kind",
}
"""Figures of overlap, and what it means where one is low."""


VERDICT = "verdict.json"
"""The verdict of a fit, in the folder of its prior."""
_KEPT = TypeAdapter(Verdict)


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Keep the verdict on a fitted prior in its folder."""
    write_json(folder / VERDICT, asdict(verdict))


def known_verdict(source: str) -> Verdict | None:
    """Return what is known of the prior in a folder without drawing from it: the verdict of its fit or, where there is none, what the
    reconstruction error of its autoencoder says; None for other priors.
    """
    if not Path(source).is_dir():
        return None
    if (Path(source) / VERDICT).is_file():
        return validated_json(Path(source) / VERDICT, _KEPT, hint="delete it, and repeat the fit, which judges the prior anew.")
    psnr_db = Repository(source).reconstruction_psnr_db
    return None if psnr_db is None else weak_prior(psnr_db)
