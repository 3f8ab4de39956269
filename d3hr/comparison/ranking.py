"""Figures that rank a set fairly, beside its accuracy (DD-Ranking, arXiv 2505.13300)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from d3hr.evaluation.results import Evaluation

REAL = "random_real"
"""The method that improvement is measured over."""
WEIGHT = 0.5
"""w: how much improvement over random weighs against hard-label recovery."""


@dataclass(frozen=True)
class Ranking:
    """How a row stands; None where a row or number that it needs is missing.

    Attributes:
        hlr: hard-label recovery, accuracy on all the real data less accuracy on the set, both with hard labels; lower is better.
        ior: improvement over random, accuracy less that of as many random real images under the same protocol.
        lrs: label-robust score of both, 0 to 1.
    """

    hlr: float | None
    ior: float | None
    lrs: float | None


def label_robust_score(ior: float, hlr: float, weight: float = WEIGHT) -> float:
    """Return (exp(a) - exp(-1)) / (e - exp(-1)) with a = w IOR - (1 - w) HLR; accuracies are shares from 0 to 1."""
    a = weight * ior - (1 - weight) * hlr
    return (math.exp(a) - math.exp(-1)) / (math.e - math.exp(-1))


def ranking(row: Evaluation, rows: Sequence[Evaluation], full_data: Mapping[str, float]) -> Ranking:
    """Return how ``row`` stands among ``rows``.

    Args:
        row: the row.
        rows: all rows: random real images of the same IPC, student and protocol are looked for among them, and, for a row of soft
            labels, the same set with hard labels.
        full_data: student -> its accuracy, 0 to 1, when trained on all the real images with hard labels.
    """
    same = [other for other in rows if (other.ipc, other.student, other.image_size) == (row.ipc, row.student, row.image_size)]
    real = _only(other for other in same if other.method == REAL and other.protocol == row.protocol)
    hard = _only(other for other in same if _label(other) == _label(row) and not other.protocol.soft) if row.protocol.soft else row
    ior = None if real is None or real is row else row.accuracy_mean - real.accuracy_mean
    hlr = None if hard is None or row.student not in full_data else full_data[row.student] - hard.accuracy_mean
    return Ranking(hlr, ior, None if ior is None or hlr is None else label_robust_score(ior, hlr))


def _label(row: Evaluation) -> str:
    return row.name or row.method


def _only(rows: Iterable[Evaluation]) -> Evaluation | None:
    return next(iter(rows), None)
