"""Accuracies as a table in text."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from d3hr.evaluation.results import Evaluation


def accuracy_table(rows: Sequence[Evaluation]) -> str:
    """Return a table of last-epoch accuracies, mean +- std in percent, with the best-epoch mean named so."""
    table = Table(box=box.SIMPLE_HEAD, title=_heading(rows), title_justify="left")
    table.add_column("method")
    for column in ("IPC", "last-epoch accuracy %", "best epoch % (chosen on test)", "runs"):
        table.add_column(column, justify="right")
    for row in sorted(rows, key=lambda row: row.ipc):
        accuracy = f"{100 * row.accuracy_mean:.1f} ± {100 * row.accuracy_std:.1f}"
        table.add_row(row.method, str(row.ipc), accuracy, f"{100 * row.best_epoch_mean:.1f}", str(len(row.runs)))
    buffer = StringIO()
    Console(file=buffer, width=100).print(table)
    return buffer.getvalue().rstrip()


def _heading(rows: Sequence[Evaluation]) -> str:
    first = rows[0]
    lengths = dict.fromkeys(row.protocol.length for row in rows)
    return f"{first.student}, {first.protocol.labels} labels, protocol {first.protocol.name} ({', '.join(lengths)})"
