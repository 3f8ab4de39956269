"""What the accuracies say, in one sentence a comparison."""

from __future__ import annotations

import math

from d3hr.report.results import Comparison, ResultRow

RANDOM_REAL = "random_real"
TIE = 0.05
"""Points of accuracy that one decimal does not show."""


def verdicts(comparison: Comparison, own: ResultRow) -> list[str]:
    """Return how a set's row stands beside random real images, and beside the best other method, at the same IPC.

    Args:
        comparison: rows that may be compared.
        own: the set's row, one of them.
    """
    others = [row for row in comparison.rows if row.ipc == own.ipc and row.method != own.method]
    real = [row for row in others if row.method == RANDOM_REAL]
    rest = sorted((row for row in others if row.method != RANDOM_REAL), key=lambda row: -row.accuracy_mean)
    said = [beside(own, row) for row in [*real[:1], *rest[:1]]]
    if not real and own.method != RANDOM_REAL:
        said.insert(0, f"{figure(own)} of real test images are classified right; random real images of the same number were not measured.")
    return said or [f"{figure(own)} of real test images are classified right."]


def beside(own: ResultRow, other: ResultRow) -> str:
    """Say how one row stands beside another, in points of accuracy, and whether the gap is larger than the spread of the runs.

    The spread is sqrt(a^2 + b^2) of the two standard deviations a and b over runs.
    """
    gap = 100 * (own.accuracy_mean - other.accuracy_mean)
    spread = 100 * math.hypot(own.accuracy_std, other.accuracy_std)
    figures = f"{figure(own)} against {figure(other)}"
    if abs(gap) < TIE:
        return f"Level with {other.title}: {figures}."
    if min(own.seeds, other.seeds) < 2:
        doubt = "with one run, the spread is not known"
    else:
        doubt = f"{'outside' if abs(gap) > spread else 'within'} the spread of the runs"
    return f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'} {other.title}: {figures}, {doubt}."


def figure(row: ResultRow) -> str:
    """Return a row's accuracy in words: ``91.7 ± 1.0 %``."""
    spread = f" ± {100 * row.accuracy_std:.1f}" if row.seeds > 1 else ""
    return f"{100 * row.accuracy_mean:.1f}{spread} %".replace(" ", "\N{NO-BREAK SPACE}")
