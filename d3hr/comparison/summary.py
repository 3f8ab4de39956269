"""Says in words how a set stands beside what it must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

from d3hr.evaluation.results import Evaluation

BASELINES = {"random_real": "random real images", "prior_only": "images drawn from the prior alone"}
"""Methods that stand in every table, with their names in a sentence."""
SUBJECTS = {"d3hr": "distilled", "folder": "the folder"}


def verdicts(rows: Sequence[Evaluation]) -> list[str]:
    """Return a sentence for each set of d3hr, or of another tool, and each baseline of the same IPC, student and protocol."""
    several = len({(row.student, row.protocol.name) for row in rows}) > 1
    lines = []
    for ours in (row for row in rows if row.method in SUBJECTS):
        for method, name in BASELINES.items():
            for other in rows:
                if other.method == method and _alike(ours) == _alike(other):
                    lines.append(_verdict(ours, other, name, several))
    return lines


def _alike(row: Evaluation) -> tuple[object, ...]:
    return row.ipc, row.student, row.protocol, row.image_size


def _verdict(ours: Evaluation, other: Evaluation, name: str, several: bool) -> str:
    gap = 100 * (ours.accuracy_mean - other.accuracy_mean)
    spread = 100 * math.hypot(ours.accuracy_std, other.accuracy_std)
    outcome = "wins" if gap > 0 else "loses"
    doubt = "" if abs(gap) > spread else ", within the spread of the seeds"
    where = f"IPC {ours.ipc}, {ours.student}, {ours.protocol.name}" if several else f"IPC {ours.ipc}"
    return f"{where}: {ours.name or SUBJECTS[ours.method]} {outcome} against {name} by {abs(gap):.1f} points{doubt}."
