"""The ways in which distilled sets fail, each as a check with thresholds and a verdict in plain words.

Sets of distilled images fail by fitting one network, by repeating a few pictures, by leaving the distribution of the real images, by
costing more than they save, or because the real images are not of the classes that they are said to be. A check that lacks its evidence
says ``unknown`` and what to run.
"""

from __future__ import annotations

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
from d3hr.formatting import percent

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

LABELS_CLEAR = 0.05
"""Share of real images that must lie clearly within a class before anything is said about labels: below, the space tells classes apart too
badly."""
LABELS_WARNING, LABELS_FAILURE = 0.05, 0.15
"""Share of these whose label says another class, which is about the share of wrong labels where classes lie apart."""


@dataclass(frozen=True)
class Verdict:
    """What one check found.

    Attributes:
        signature: which failure it looks for.
        status: ok, warning, failure, or unknown.
        text: the finding in plain words.
        evidence: the figures it rests on.
    """

    signature: str
    status: Status
    text: str = ""
    evidence: str = ""


def transfer(rows: Sequence[ResultRow], method: str | None, ipc: int | None) -> Verdict:
    """Compare what students lose against the best one with what the same students lose on random real images.

    Args:
        rows: results of evaluations; rows of one protocol are compared.
        method: the set's method.
        ipc: its images per class.
    """
    name = "poor transfer to other architectures"
    if method == "random_real":
        return Verdict(name, "ok", "The set is a random choice of real images, which favours no network.", "method random_real")
    ours, random = _accuracies(rows, method, ipc), _accuracies(rows, "random_real", ipc)
    if not any(len(students) > 1 for students in ours.values()):
        run = "Evaluate it with a second one ('d3hr evaluate SET --test TEST --student resnet18') and diagnose it again."
        known = ", ".join(sorted({student for students in ours.values() for student in students}))
        return Verdict(name, "unknown", f"Only one student, or none, was trained on the set. {run}", f"students: {known or 'none'}")
    worst: tuple[float, float, str, str, str] | None = None
    for protocol, students in ours.items():
        beside = random.get(protocol, {})
        best = max(students, key=lambda student: students[student][0])
        for other in students.keys() - {best}:
            if students[best][0] <= 0 or not {best, other} <= beside.keys():
                continue
            drop = students[best][0] - students[other][0]
            expected = beside[best][0] - beside[other][0]
            spread = math.hypot(*(pair[1] for pair in (students[best], students[other], beside[best], beside[other])))
            excess = (drop - expected) / students[best][0]
            figures = f"{best} {percent(students[best][0])} %, {other} {percent(students[other][0])} %; on random real images "
            figures += f"{percent(beside[best][0])} % and {percent(beside[other][0])} % ({protocol[0]}, {protocol[1]} labels)"
            if worst is None or excess > worst[0]:
                worst = (excess, spread / students[best][0], best, other, figures)
    if worst is None:
        text = "There are no rows of random real images for the same students and protocol. Repeat 'd3hr evaluate' with --data."
        return Verdict(name, "unknown", text, f"students: {', '.join(sorted({s for of in ours.values() for s in of}))}")
    excess, spread, best, other, figures = worst
    status = _graded(excess, TRANSFER_WARNING, TRANSFER_FAILURE) if excess > spread else "ok"
    if status == "ok":
        return Verdict(
            name, status, f"{other} loses no more against {best} than it does on random real images, within the limits.", figures
        )
    text = f"{other} loses {percent(excess)} % of {best}'s accuracy beyond what it loses on random real images: the set favours {best}."
    return Verdict(name, status, text, figures)


def diversity_loss(distilled: float | None, real: float | None, found: Support, reference: Support | None) -> Verdict:
    """Compare the spread within classes, and the coverage of the real images, with those of as many real images.

    Args:
        distilled: mean distance within classes of the set.
        real: the same of real images.
        found: coverage of the set.
        reference: coverage of as many random real images.
    """
    name = "loss of diversity"
    within: Status = "ok"
    reach: Status = "ok"
    figures = []
    if distilled is not None and real:
        ratio = distilled / real
        within = _graded(-ratio, -DIVERSITY_WARNING, -DIVERSITY_FAILURE)
        figures.append(f"mean distance within a class {ratio:.2f} of that of real images")
    if found.coverage is not None and reference is not None and reference.coverage:
        ratio = found.coverage / reference.coverage
        reach = _graded(-ratio, -COVERAGE_WARNING, -COVERAGE_FAILURE)
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
    return Verdict(name, _worst([within, reach]), alike + reached, "; ".join(figures))


def drift(found: Mapping[str, Distance], normality: Normality | None, settings: DistillSettings | None) -> Verdict:
    """Compare the distances to the real images with those of random real images, and ask whether the latents were Gaussian.

    The unbiased MMD of random real images is 0 on average, so that it has no ratio; it is judged by its deviations alone and not failed.

    Args:
        found: the distances.
        normality: by level, if it was tested.
        settings: of a set that was drawn from class Gaussians.
    """
    name = "distribution drift"
    pairs = {key: value for key, value in found.items() if value.distilled is not None and value.reference_mean is not None}
    ratios = {
        key: pair.distilled / pair.reference_mean
        for key, pair in pairs.items()
        if key != "mmd" and pair.distilled is not None and pair.reference_mean
    }
    statuses: list[Status] = []
    figures = [f"{key.replace('_', ' ')} {ratio:.2f} of the reference" for key, ratio in ratios.items()]
    if ratios:
        median = float(np.median(list(ratios.values())))
        far = sum(_deviations(pairs[key]) > DRIFT_DEVIATIONS for key in ratios) > len(ratios) / 2
        statuses.append(_graded(median, DRIFT_WARNING, DRIFT_FAILURE) if far else "ok")
    if "mmd" in pairs:
        figures.append(f"MMD {_deviations(pairs['mmd']):.1f} standard deviations above the reference")
    share = _share_at(normality, settings.statistics_level) if normality and settings else None
    doubtful = share is not None and share < NORMALITY_WARNING
    if share is not None and settings:
        figures.append(f"{percent(share)} % of latent dimensions pass for Gaussian at level {settings.statistics_level}")
    if doubtful:
        statuses.append("warning")
    if not statuses:
        text = "There are too few real images for a reference: give a class at least twice as many as are distilled."
        return Verdict(name, "unknown", text, "; ".join(figures) or "no reference")
    status = _worst(statuses)
    text = {
        "ok": "The set lies about as near to the real images as a random choice of them.",
        "warning": "The set lies further from the real images than a random choice of them.",
        "failure": "The set lies far from the real images.",
    }[statuses[0] if ratios else "ok"]
    if doubtful:
        text += " At its level the latents are not Gaussian, so that draws from a Gaussian are not like them."
    return Verdict(name, status, text, "; ".join(figures))


def cost(method: str, settings: DistillSettings | None, real_images: int, seconds_an_image: float | None) -> Verdict:
    """Hold the network calls of inverting every real image, and the time they take here, against what can be waited for.

    Args:
        method: the set's method.
        settings: of a set that was made by inversion.
        real_images: how many real images there are.
        seconds_an_image: what inverting one took, if it was measured.
    """
    name = "infeasible cost"
    if method == "random_real":
        return Verdict(name, "ok", "Choosing real images calls no network.", "method random_real")
    if settings is None:
        text = "The set does not tell how it was made. 'd3hr plan' tells what distilling the data with d3hr would cost."
        return Verdict(name, "unknown", text, f"method {method}")
    calls = num_predictions(settings.statistics_level, settings.inversion_stride) * calls_per_prediction(settings.inversion_guidance)
    least = "at least " if settings.solver == "fixed_point" else ""
    figures = f"{least}{calls} network calls an image, {least}{calls * real_images:,} for {real_images:,} images"
    if seconds_an_image is None:
        text = "How long a call takes is unknown without the prior: give --prior, or run 'd3hr plan'."
        return Verdict(name, "unknown", text, figures)
    hours = seconds_an_image * real_images / 3600
    status = _graded(hours, COST_WARNING_HOURS, COST_FAILURE_HOURS)
    took = f"{hours:.2g} hours" if hours >= 1 else f"{60 * hours:.2g} minutes"
    text = f"Inverting all real images takes about {took} on this machine" + {
        "ok": ".",
        "warning": ", which is more than a day.",
        "failure": ", which is more than a week: use a faster device, fewer steps, or fewer real images.",
    }.get(status, ".")
    return Verdict(name, status, text, f"{figures}; {seconds_an_image:.2g} seconds an image, measured here in batches of 8")


def doubtful_labels(found: LabelAgreement, space: str) -> Verdict:
    """Ask whether real images lie among images of other classes, which a set then also shows under the wrong name.

    Args:
        found: the agreement of labels and neighbours.
        space: where they are neighbours, in words.
    """
    name = "doubtful labels"
    if found.clear is None:
        return Verdict(name, "unknown", "There are too few real images of a class for it, or only one class.", "no neighbourhoods")
    figures = f"{percent(found.clear)} % of the real images lie clearly within one class"
    if found.contradicted is None or found.clear < LABELS_CLEAR:
        text = "Images of different classes lie mixed, so that neighbours say little about labels. Give a teacher: its features know more."
        return Verdict(name, "unknown", text, f"{figures} ({space})")
    status = _graded(found.contradicted, LABELS_WARNING, LABELS_FAILURE)
    text = {
        "ok": "The labels of the real images agree with the images around them.",
        "warning": "Some real images lie within another class than their label says: labels may be wrong, or two classes look alike.",
        "failure": "Many real images lie within another class than their label says: labels are wrong, or classes look alike.",
    }[status]
    return Verdict(name, status, text, f"{figures}; of these {percent(found.contradicted)} % have another label ({space})")


def _accuracies(rows: Sequence[ResultRow], method: str | None, ipc: int | None) -> dict[tuple[str, str], dict[str, tuple[float, float]]]:
    """Return (protocol, labels) -> student -> accuracy and its standard deviation."""
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for row in rows:
        if (row.method, row.ipc) == (method, ipc):
            found.setdefault((row.protocol, row.labels), {})[row.student] = (row.accuracy_mean, row.accuracy_std)
    return found


def _graded(value: float, warning: float, failure: float) -> Status:
    return "failure" if value > failure else "warning" if value > warning else "ok"


def _worst(statuses: Sequence[Status]) -> Status:
    order: tuple[Status, ...] = ("ok", "warning", "failure")
    return max(statuses, key=order.index)


def _deviations(pair: Distance) -> float:
    if pair.distilled is None or pair.reference_mean is None or not pair.reference_std:
        return 0.0
    return (pair.distilled - pair.reference_mean) / pair.reference_std


def _share_at(normality: Normality, level: int) -> float | None:
    return next((row.shapiro for row in normality.levels if row.level == level), None)
