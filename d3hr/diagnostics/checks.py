"""Checks for the ways in which distilled sets fail, each with thresholds and a verdict in plain words.

Sets of distilled images fail by fitting one network, by repeating a few pictures, by leaving the distribution of the real images, by
costing more than they save, or because the real images carry wrong labels. A check that lacks its evidence says ``unknown`` and what to
run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from d3hr.diagnostics.distances import Distance
from d3hr.diagnostics.neighbours import LabelAgreement, Support
from d3hr.diagnostics.normality import Normality
from d3hr.distillation.ddim import calls_per_prediction, num_predictions
from d3hr.distillation.settings import DistillSettings
from d3hr.evaluation.results import ResultRow
from d3hr.formatting import percent, time_in_words

Status = Literal["ok", "warning", "failure", "unknown"]

TRANSFER_WARNING, TRANSFER_FAILURE = 0.10, 0.25
"""Share of the best student's accuracy that another student loses beyond what it loses on random real images. A tenth is more than students
of the same data differ by from seed to seed; at a quarter the set serves one network."""
DIVERSITY_WARNING, DIVERSITY_FAILURE = 0.8, 0.5
"""Mean distance within a class as a share of that of real images. Random real sets of two images in each of ten
classes of digits had 0.88 to 1.07; at a half, the images of a class fill a ball of half the radius."""
COVERAGE_WARNING, COVERAGE_FAILURE = 0.5, 0.25
"""Coverage as a share of that of as many random real images. Random sets of digits had 0.93 to 1.44: it varies more than diversity, so it
must fall further."""
DRIFT_WARNING, DRIFT_FAILURE = 1.5, 3.0
"""Median ratio of the distances to those of random real images, which scatter around 1 by a tenth or two."""
DRIFT_DEVIATIONS = 3.0
"""A ratio counts if the distance also lies this many standard deviations above the reference."""
NORMALITY_WARNING = 0.5
"""Share of latent dimensions that pass for Gaussian at the level of the statistics; 0.95 if they are. Where half do not, a Gaussian is a
poor account of a class."""
COST_WARNING_HOURS, COST_FAILURE_HOURS = 24.0, 168.0
"""Inverting all real images: a day can be waited for, a week on one machine will not be repeated after a mistake."""

LABELS_SEPARATION = 0.3
"""How well the space must tell classes apart (see :class:`~d3hr.diagnostics.neighbours.LabelAgreement`) before anything is said about
labels. Pixels of Fashion-MNIST have 0.75, with 40 % wrong labels 0.38; pixels of CIFAR-10 and of photos, sharp or blurred, 0.18 to 0.23:
there 21 to 32 % of the images that lie clearly within a class contradict labels that are right."""
LABELS_WARNING, LABELS_FAILURE = 0.05, 0.15
"""Share of these whose label says another class, which is about the share of wrong labels where classes lie apart."""


@dataclass(frozen=True)
class Verdict:
    """The result of one check: the failure that it looks for, a status, the result in plain words, and the figures behind it."""

    signature: str
    status: Status
    text: str = ""
    evidence: str = ""

    def as_text(self) -> str:
        """Return two lines for people."""
        return f"[{self.status}] {self.signature}: {self.text}\n    {self.evidence}"


def transfer(rows: Sequence[ResultRow], method: str | None, ipc: int | None, pack: int = 1) -> Verdict:
    """Check whether students lose more against the best one of the same protocol on the set than they lose on random real images.

    Only rows of sets that are packed like the set count, those of random real images too.
    """
    name = "poor transfer to other architectures"
    if method == "random_real":
        return Verdict(name, "ok", "The set is a random choice of real images, which favours no network.", "method random_real")
    rows = [row for row in rows if row.pack == pack]
    ours, random = _by_protocol(rows, method, ipc), _by_protocol(rows, "random_real", ipc)
    trained = ", ".join(sorted({student for students in ours.values() for student in students}))
    if not any(len(students) > 1 for students in ours.values()):
        run = "Evaluate it with a second one ('d3hr evaluate SET --test TEST --student resnet18') and diagnose it again."
        return Verdict(name, "unknown", f"Only one student, or none, was trained on the set. {run}", f"students: {trained or 'none'}")
    losses = []
    for protocol, students in ours.items():
        reference = random.get(protocol, {})
        best = max(students.values(), key=lambda row: row.accuracy_mean)
        for other in students.values():
            if other is not best and best.accuracy_mean > 0 and {best.student, other.student} <= reference.keys():
                losses.append(_Loss(best, other, reference[best.student], reference[other.student]))
    if not losses:
        text = "There are no rows of random real images for the same students and protocol. Repeat 'd3hr evaluate' with --data."
        return Verdict(name, "unknown", text, f"students: {trained}")
    worst = max(losses, key=lambda loss: loss.excess)
    best_name, other_name = worst.best.student, worst.other.student
    status = graded(worst.excess, TRANSFER_WARNING, TRANSFER_FAILURE) if worst.excess > worst.spread else "ok"
    text = f"{other_name} loses no more against {best_name} than it does on random real images, within the limits."
    if status != "ok":
        text = f"{other_name} loses {percent(worst.excess)} % of {best_name}'s accuracy beyond what it loses on random real images: "
        text += f"the set favours {best_name}."
    return Verdict(name, status, text, str(worst))


@dataclass(frozen=True)
class _Loss:
    """What a student loses against the best one of the same protocol, on the set and on random real images."""

    best: ResultRow
    other: ResultRow
    random_best: ResultRow
    random_other: ResultRow

    @property
    def excess(self) -> float:
        """Loss on the set beyond that on random real images, as a share of the best accuracy."""
        drop = self.best.accuracy_mean - self.other.accuracy_mean
        expected = self.random_best.accuracy_mean - self.random_other.accuracy_mean
        return (drop - expected) / self.best.accuracy_mean

    @property
    def spread(self) -> float:
        """Standard deviation of the excess over the seeds."""
        rows = (self.best, self.other, self.random_best, self.random_other)
        return math.hypot(*(row.accuracy_std for row in rows)) / self.best.accuracy_mean

    def __str__(self) -> str:
        ours = f"{self.best.student} {percent(self.best.accuracy_mean)} %, {self.other.student} {percent(self.other.accuracy_mean)} %"
        random = f"{percent(self.random_best.accuracy_mean)} % and {percent(self.random_other.accuracy_mean)} %"
        return f"{ours}; on random real images {random} ({self.best.protocol}, {self.best.labels} labels)"


def _by_protocol(rows: Sequence[ResultRow], method: str | None, ipc: int | None) -> dict[tuple[str, str], dict[str, ResultRow]]:
    """Return (protocol, labels) -> student -> its row, of one method at one IPC."""
    protocols: dict[tuple[str, str], dict[str, ResultRow]] = {}
    for row in rows:
        if (row.method, row.ipc) == (method, ipc):
            protocols.setdefault((row.protocol, row.labels), {})[row.student] = row
    return protocols


def diversity_loss(distilled: float | None, real: float | None, ours: Support, reference: Support | None) -> Verdict:
    """Check the mean distance of two images of a class, and the coverage of the real images, against those of as many random real images.

    ``distilled`` is None for one image per class, ``reference`` if there are too few real images.
    """
    name = "loss of diversity"
    within: Status = "ok"
    reach: Status = "ok"
    figures = []
    if distilled is not None and real:
        ratio = distilled / real
        within = graded(-ratio, -DIVERSITY_WARNING, -DIVERSITY_FAILURE)
        figures.append(f"mean distance within a class {ratio:.2f} of that of real images")
    if ours.coverage is not None and reference is not None and reference.coverage:
        ratio = ours.coverage / reference.coverage
        reach = graded(-ratio, -COVERAGE_WARNING, -COVERAGE_FAILURE)
        figures.append(f"coverage {ratio:.2f} of that of as many random real images")
    if not figures:
        text = "There are too few images for it: give a set of at least two images a class, or more real images."
        return Verdict(name, "unknown", text, "no pair of images within a class")
    alike = {
        "ok": "The images of a class differ from one another about as much as real ones do",
        "warning": "The images of a class are more alike than real ones",
        "failure": "The images of a class are nearly alike",
    }[within]
    if distilled is None:
        alike = "One image a class cannot be alike another"
    reached = {
        "ok": ".",
        "warning": "; they lie near fewer real images than a random choice of real ones would.",
        "failure": "; they lie near only a small part of the real images, if any.",
    }[reach]
    return Verdict(name, worst_of([within, reach]), alike + reached, "; ".join(figures))


def drift(measured: Mapping[str, Distance], normality: Normality | None, settings: DistillSettings | None) -> Verdict:
    """Check the distances to the real images against those of random real images, and whether the latents are Gaussian.

    The unbiased MMD of random real images is 0 on average, so no ratio to it is formed: it is shown as a number of standard deviations.
    Only a set that was drawn from class Gaussians has ``settings``.
    """
    name = "distribution drift"
    ratios = {
        key: distance.distilled / distance.reference_mean
        for key, distance in measured.items()
        if key != "mmd" and distance.distilled is not None and distance.reference_mean
    }
    statuses: list[Status] = []
    figures = [f"{key.replace('_', ' ')} {ratio:.2f} of the reference" for key, ratio in ratios.items()]
    if ratios:
        median = float(np.median(list(ratios.values())))
        far = sum(_deviations(measured[key]) > DRIFT_DEVIATIONS for key in ratios) > len(ratios) / 2
        statuses.append(graded(median, DRIFT_WARNING, DRIFT_FAILURE) if far else "ok")
    mmd = measured.get("mmd", Distance())
    if mmd.distilled is not None and mmd.reference_mean is not None:
        figures.append(f"MMD {_deviations(mmd):.1f} standard deviations above the reference")
    level = settings.statistics_level if settings else None
    share = next((row.shapiro for row in normality.levels if row.level == level), None) if normality else None
    if share is not None:
        figures.append(f"{percent(share)} % of latent dimensions pass for Gaussian at level {level}")
    doubtful = share is not None and share < NORMALITY_WARNING
    if doubtful:
        statuses.append("warning")
    if not statuses:
        text = "There are too few real images for a reference: give a class at least twice as many as are distilled."
        return Verdict(name, "unknown", text, "; ".join(figures) or "no reference")
    status = worst_of(statuses)
    text = {
        "ok": "The set lies about as near to the real images as a random choice of them.",
        "warning": "The set lies further from the real images than a random choice of them.",
        "failure": "The set lies far from the real images.",
    }[statuses[0] if ratios else "ok"]
    if doubtful:
        text += " At its level the latents are not Gaussian, so that draws from a Gaussian are not like them."
    return Verdict(name, status, text, "; ".join(figures))


def cost(method: str, settings: DistillSettings | None, real_images: int, seconds_per_image: float | None) -> Verdict:
    """Check how many network calls, and how much time on this machine, inverting every real image takes.

    Only a set that was made by inversion has ``settings``.
    """
    name = "infeasible cost"
    if method == "random_real":
        return Verdict(name, "ok", "Choosing real images calls no network.", "method random_real")
    if settings is None:
        text = "The set does not tell how it was made. 'd3hr plan' tells what distilling the data with d3hr would cost."
        return Verdict(name, "unknown", text, f"method {method}")
    predictions = num_predictions(settings.statistics_level, settings.inversion_stride, settings.solver)
    calls = predictions * calls_per_prediction(settings.inversion_guidance)
    least = "at least " if settings.solver == "fixed_point" else ""
    figures = f"{least}{calls} network calls an image, {least}{calls * real_images:,} for {real_images:,} images"
    if seconds_per_image is None:
        text = "How long a call takes is unknown without the prior: give --prior, or run 'd3hr plan'."
        return Verdict(name, "unknown", text, figures)
    hours = seconds_per_image * real_images / 3600
    status = graded(hours, COST_WARNING_HOURS, COST_FAILURE_HOURS)
    text = f"Inverting all real images takes about {time_in_words(3600 * hours)} on this machine" + {
        "ok": ".",
        "warning": ", which is more than a day.",
        "failure": ", which is more than a week: use a faster device, fewer steps, or fewer real images.",
    }.get(status, ".")
    return Verdict(name, status, text, f"{figures}; {seconds_per_image:.2g} seconds an image, measured here in batches of 8")


def doubtful_labels(labels: LabelAgreement, space: str) -> Verdict:
    """Check whether real images lie among images of other classes: a set then also shows them under the wrong name."""
    name = "doubtful labels"
    if labels.clear is None:
        return Verdict(name, "unknown", "There are too few real images of a class for it, or only one class.", "no neighbourhoods")
    figures = f"{percent(labels.clear)} % of the real images lie clearly within one class"
    if labels.contradicted is None or labels.separation is None or labels.separation < LABELS_SEPARATION:
        text = "Images of different classes lie mixed, so that neighbours say little about labels. Give a teacher: its features know more."
        return Verdict(name, "unknown", text, f"{figures} ({space})")
    status = graded(labels.contradicted, LABELS_WARNING, LABELS_FAILURE)
    text = {
        "ok": "The labels of the real images agree with the images around them.",
        "warning": "Some real images lie within another class than their label says: labels may be wrong, or two classes look alike.",
        "failure": "Many real images lie within another class than their label says: labels are wrong, or classes look alike.",
    }[status]
    return Verdict(name, status, text, f"{figures}; of these {percent(labels.contradicted)} % have another label ({space})")


PRIOR_WARNING_DB, PRIOR_FAILURE_DB = 25.0, 20.0
"""PSNR of the autoencoder on real images, below which details are lost, and below which pictures are blurs: photos at 17 dB, which is
coloured patches, taught a third less than as many random real ones (docs/experiments.md)."""


def weak_prior(psnr_db: float) -> Verdict:
    """Check whether a prior can show what is in the real images, from the PSNR of decode(encode(image)), in dB."""
    status = graded(-psnr_db, -PRIOR_WARNING_DB, -PRIOR_FAILURE_DB)
    text = {
        "ok": "The autoencoder keeps what is in the real images.",
        "warning": "The autoencoder loses details of the real images, and every image that the prior draws lacks them.",
        "failure": "The autoencoder turns the real images into blurs, and every image that the prior draws is one; figures in its latent "
        "space say little. Choose real images (--candidates real), fit it for longer, at a smaller --image-size, or take a pretrained one.",
    }[status]
    return Verdict("weak prior", status, text, f"reconstruction {psnr_db:.1f} dB")


def graded(value: float, warning: float, failure: float) -> Status:
    """Return ``failure`` or ``warning`` for a value above that limit, else ``ok``."""
    return "failure" if value > failure else "warning" if value > warning else "ok"


def worst_of(statuses: Sequence[Status]) -> Status:
    """Return the worst of the statuses, at least one, none of them ``unknown``."""
    order: tuple[Status, ...] = ("ok", "warning", "failure")
    return max(statuses, key=order.index)


def _deviations(distance: Distance) -> float:
    if distance.distilled is None or distance.reference_mean is None or not distance.reference_std:
        return 0.0
    return (distance.distilled - distance.reference_mean) / distance.reference_std
