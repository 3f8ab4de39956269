"""Figures that rank sets more fairly than accuracy alone (DD-Ranking, arXiv 2505.13300), and differences of accuracies over equal seeds."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d3hr.evaluation.results import Evaluation, TrainingResult

REAL = "random_real"
"""The method that improvement is measured over."""
WEIGHT = 0.5
"""w: weight of the improvement over random against the hard-label recovery."""


@dataclass(frozen=True)
class Ranking:
    """The ranking figures of a row; None if a row or number that they need is missing."""

    hlr: float | None
    """Hard-label recovery: accuracy on all the real data less accuracy on the set, both with hard labels; lower is better."""
    ior: float | None
    """Improvement over random: accuracy less that of as many random real images under the same protocol."""
    lrs: float | None
    """Label-robust score of both, 0 to 1."""


def label_robust_score(ior: float, hlr: float, weight: float = WEIGHT) -> float:
    """Return (exp(a) - exp(-1)) / (e - exp(-1)) with a = w IOR - (1 - w) HLR; accuracies are shares from 0 to 1."""
    a = weight * ior - (1 - weight) * hlr
    return (math.exp(a) - math.exp(-1)) / (math.e - math.exp(-1))


def ranking(row: Evaluation, rows: Sequence[Evaluation], full_data: Mapping[str, float]) -> Ranking:
    """Return the ranking figures of ``row``, given each student's accuracy, 0 to 1, when trained on all the real images with hard labels.

    They follow from the row of random real images of the same IPC, packing, student and protocol among ``rows`` and, for a row of soft
    labels, from that of the same set with hard labels. Of several hard protocols it is the one that differs in the labels alone; if none or
    more than one does, HLR and LRS are None.
    """
    same = [other for other in rows if _kind(other) == _kind(row)]
    real = next((other for other in same if other.method == REAL and other.protocol == row.protocol), None)
    hard = _hard_partner(row, same) if row.protocol.soft else row
    ior = None if real is None or real is row else row.accuracy_mean - real.accuracy_mean
    hlr = None if hard is None or row.student not in full_data else full_data[row.student] - hard.accuracy_mean
    return Ranking(hlr, ior, None if ior is None or hlr is None else label_robust_score(ior, hlr))


def _kind(row: Evaluation) -> tuple[object, ...]:
    """Return what a row shares with those that its figures follow from."""
    return row.ipc, row.pack, row.student, row.image_size


def _hard_partner(row: Evaluation, same: Sequence[Evaluation]) -> Evaluation | None:
    """Return the row of the same set with hard labels, of those in ``same``."""
    name = row.name or row.method
    hard = [other for other in same if (other.name or other.method) == name and not other.protocol.soft]
    if len(hard) > 1:
        apart = {"name", "labels", "temperature", "label_smoothing"}
        hard = [other for other in hard if other.protocol.model_dump(exclude=apart) == row.protocol.model_dump(exclude=apart)]
    return hard[0] if len(hard) == 1 else None


@dataclass(frozen=True)
class Difference:
    """How much more accurate one row is than another after the last epoch, -1 to 1, with the ends of the 95 % confidence interval.

    ``pairs`` is the number of independent differences behind it, one for each set of the first row. A single one has an interval without
    bounds.
    """

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def advantages_on(
    ways: Mapping[str, Sequence[TrainingResult]], other: Sequence[TrainingResult], *, confidence: float = 0.95
) -> dict[str, Difference]:
    """Return the mean difference of each way to ``other`` over runs of equal seeds, with an interval for other sets *and* other images.

    :func:`paired_difference` is about the test images at hand. Here they are a sample too: with d[s, i] in {-1, 0, 1} the difference of set
    s of S at image i of n, the variance of the mean is v / S + var_i(mean_s d) / n, where v is var_s(mean_i d), pooled over all ways, since
    few sets of one tell little of it. What is left of both counts twice, which is on the safe side. The interval is that of Student's t
    with the degrees of freedom of Welch and Satterthwaite; it has no bounds where no way has two sets. A way without common seeds is left
    out.

    Args:
        ways: name of each way -> its runs, with their hits.
        other: runs on the same test images, with theirs.
        confidence: share of such intervals that hold the true difference, 0 to 1.
    """
    found = {name: differences for name, runs in ways.items() if len(differences := _differences(runs, other))}
    freedom = sum(len(differences) - 1 for differences in found.values())
    scatter = sum(((means := each.mean(axis=1)) - means.mean()) @ (means - means.mean()) for each in found.values())
    result = {}
    for name, differences in found.items():
        mean, (sets, images) = float(differences.mean()), differences.shape
        if not freedom or images < 2:
            result[name] = Difference(mean, -math.inf, math.inf, sets)
            continue
        parts = scatter / freedom / sets, differences.mean(axis=0).var(ddof=1) / images
        half = _half_width(parts, (freedom, images - 1), confidence)
        result[name] = Difference(mean, mean - half, mean + half, sets)
    return result


def _half_width(parts: tuple[float, float], freedom: tuple[int, int], confidence: float) -> float:
    """Return half the interval of a mean whose variance is the sum of ``parts``, each known with its degrees of freedom."""
    from scipy.stats import t

    variance = sum(parts)
    if not variance:
        return 0.0
    degrees = variance**2 / sum(part**2 / known for part, known in zip(parts, freedom, strict=True))
    return float(t.ppf((1 + confidence) / 2, degrees)) * math.sqrt(variance)


def _differences(ours: Sequence[TrainingResult], other: Sequence[TrainingResult]) -> NDArray[np.float64]:
    """Return d [S, n] of the runs of equal seeds: 1 where ours alone is right, -1 where the other alone is; [0, 0] where none pair."""
    theirs = {(run.distillation_seed, run.training_seed): run for run in other}
    pairs = [(run, theirs[key]) for run in ours if (key := (run.distillation_seed, run.training_seed)) in theirs]
    return np.stack([_hits(run) - _hits(partner) for run, partner in pairs]) if pairs else np.empty((0, 0))


def _hits(run: TrainingResult) -> NDArray[np.float64]:
    """Return 1 for each test image whose class was named right, else 0."""
    hits: NDArray[np.float64] = (np.frombuffer(run.hits.encode(), dtype=np.uint8) == ord("1")).astype(np.float64)
    return hits


def paired_difference(ours: Sequence[TrainingResult], other: Sequence[TrainingResult]) -> Difference | None:
    """Return the mean difference over paired runs, with the interval of Student's t over our sets; None if no runs pair.

    A pair is of equal distillation seed and training seed; where one side has a single set, which may be of a method that draws nothing, of
    equal training seed. Trainings of one set are not independent, nor are differences of one set to several: those of each of our sets are
    averaged first. An interval against a single set says nothing of other sets of its method.
    """
    single = any(len({run.distillation_seed for run in side}) == 1 for side in (ours, other))
    theirs: dict[tuple[int | None, int], list[float]] = defaultdict(list)
    for run in other:
        theirs[None if single else run.distillation_seed, run.training_seed].append(run.last_epoch)
    by_set: dict[int, list[float]] = defaultdict(list)
    for run in ours:
        for accuracy in theirs.get((None if single else run.distillation_seed, run.training_seed), []):
            by_set[run.distillation_seed].append(run.last_epoch - accuracy)
    if not by_set:
        return None
    values = [statistics.fmean(differences) for differences in by_set.values()]
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Difference(mean, -math.inf, math.inf, 1)
    from scipy.stats import t

    half = float(t.ppf((1 + 0.95) / 2, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return Difference(mean, mean - half, mean + half, count)
