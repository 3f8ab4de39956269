"""The outcome of a comparison: rows that are written to a folder, printed as tables and summed up in sentences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from d3hr.comparison.statistics import ranking
from d3hr.evaluation.results import BASELINES, Evaluation, ResultRow, read_results, write_results
from d3hr.formatting import percent, table
from d3hr.sets.packing import packed_in_words

SUBJECTS = {"d3hr": "distilled", "folder": "the folder"}
"""Methods that are compared with the baselines, likewise."""


@dataclass(frozen=True)
class Comparison:
    """Methods compared under equal conditions: a row for each method, number of images per class, student and protocol.

    ``full_data`` is each student's accuracy, 0 to 1, on the same test images when trained on all the real images.
    """

    rows: Sequence[Evaluation]
    full_data: Mapping[str, float] = field(default_factory=dict)

    def ranked(self) -> list[ResultRow]:
        """Return the rows with their HLR, IOR and LRS."""
        return [ResultRow.model_validate({**row.as_row(), **asdict(ranking(row, self.rows, self.full_data))}) for row in self.rows]

    def write(self, folder: Path) -> None:
        """Write ``results.json`` and ``results.csv`` into a folder.

        Rows of other students, protocols or methods that earlier runs wrote there stay; a row of the same is replaced. The caller has
        locked the folder, so that no other run's rows are lost.
        """
        hint = "move it away: it is written anew from the results of the single trainings."
        before = read_results([folder], hint=hint) if (folder / "results.json").is_file() else []
        rows = self.ranked()
        replaced = [row.identity for row in rows]
        write_results(folder, [*(row for row in before if row.identity not in replaced), *rows])

    def summary(self) -> list[str]:
        """Return a sentence for each set of d3hr, or of another tool, and each baseline of the same IPC, student and protocol."""
        several = len({(row.student, row.protocol.name) for row in self.rows}) > 1
        return [
            _sentence(ours, other, name, several)
            for ours in self.rows
            if ours.method in SUBJECTS
            for method, name in BASELINES.items()
            for other in self.rows
            if other.method == method and _conditions(ours) == _conditions(other)
        ]

    def as_text(self) -> str:
        """Return the tables and the summary as lines for people."""
        return "\n".join([accuracy_table(self.rows, self.full_data), *self.summary()])

    def as_values(self) -> dict[str, Any]:
        """Return the rows and the summary as JSON values."""
        return {"results": [row.as_values() for row in self.ranked()], "verdicts": self.summary()}


def accuracy_table(rows: Sequence[Evaluation], full_data: Mapping[str, float] | None = None) -> str:
    """Return tables of last-epoch accuracies in percent, one for each student and protocol: hard and soft labels share no column, nor do
    packed sets and others.

    A row is mean +- std over all runs, with the best-epoch mean under that name; std over sets and over trainings are separate columns
    where both are known, HLR, IOR and LRS where one is.
    """
    groups: dict[str, list[Evaluation]] = {}
    for row in rows:
        labels = "soft" if row.protocol.soft else "hard"
        packed = f", {packed_in_words(row.pack)}" if row.pack > 1 else ""
        groups.setdefault(f"{row.student}, {labels} labels, protocol {row.protocol.name}{packed}", []).append(row)
    return "\n".join(_table(heading, group, rows, full_data or {}) for heading, group in groups.items())


def _table(heading: str, rows: Sequence[Evaluation], everything: Sequence[Evaluation], full_data: Mapping[str, float]) -> str:
    lengths = ", ".join(dict.fromkeys(row.protocol.length for row in rows))
    lines = [_line(row, everything, full_data) for row in sorted(rows, key=lambda row: row.ipc)]
    shown = [name for name in lines[0] if any(line[name] for line in lines)]
    cells = [[line[name] for name in shown] for line in lines]
    return table(shown, cells, right=range(1, len(shown)), title=f"{heading} ({lengths})")


def _line(row: Evaluation, everything: Sequence[Evaluation], full_data: Mapping[str, float]) -> dict[str, str]:
    """Return the cells of a row by column; a column in which all are empty is left out."""
    both = row.distillation_std is not None and row.training_std is not None
    ranked = ranking(row, everything, full_data)
    return {
        "method": row.name or row.method,
        "IPC": str(row.ipc),
        "last-epoch accuracy %": f"{percent(row.accuracy_mean)} ± {percent(row.accuracy_std)}",
        "over sets": f"± {percent(row.distillation_std)}" if both else "",
        "over trainings": f"± {percent(row.training_std)}" if both else "",
        "best epoch % (chosen on test)": percent(row.best_epoch_mean),
        "runs": str(len(row.runs)),
        "HLR": percent(ranked.hlr),
        "IOR": percent(ranked.ior),
        "LRS": "" if ranked.lrs is None else f"{ranked.lrs:.3f}",
    }


def _conditions(row: Evaluation) -> tuple[object, ...]:
    """Return what two rows must have in common to be compared."""
    return row.ipc, row.pack, row.student, row.protocol, row.image_size


def _sentence(ours: Evaluation, other: Evaluation, name: str, several: bool) -> str:
    gap = 100 * (ours.accuracy_mean - other.accuracy_mean)
    spread = 100 * math.hypot(ours.accuracy_std, other.accuracy_std)
    outcome = "wins" if gap > 0 else "loses"
    doubt = "" if abs(gap) > spread else ", within the spread of the seeds"
    where = f"IPC {ours.ipc}, {ours.student}, {ours.protocol.name}" if several else f"IPC {ours.ipc}"
    where += f", packed {ours.pack}x{ours.pack}" if ours.pack > 1 else ""
    return f"{where}: {ours.name or SUBJECTS[ours.method]} {outcome} against {name} by {abs(gap):.1f} points{doubt}."
