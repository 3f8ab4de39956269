"""Rows of accuracies as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich import box
from rich.console import Console
from rich.table import Table

from d3hr.comparison.statistics import ranking
from d3hr.evaluation.results import Evaluation
from d3hr.fileio.atomic import write_bytes, write_json
from d3hr.fileio.structured import validated_json

_NESTED = ("runs", "per_class", "class_names", "confusion", "protocol_settings", "teacher")
"""What a row of JSON holds and one of CSV does not."""
_ROWS = TypeAdapter(list[dict[str, Any]])


def as_rows(rows: Sequence[Evaluation], full_data: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return rows with their HLR, IOR and LRS as JSON values; ``full_data`` maps students to their accuracy on all real images."""
    return [
        {
            **row.as_row(),
            **{name: None if value is None else round(value, 6) for name, value in asdict(ranking(row, rows, full_data)).items()},
        }
        for row in rows
    ]


def write_rows(folder: Path, rows: Sequence[Evaluation], full_data: Mapping[str, float]) -> list[dict[str, Any]]:
    """Write ``results.json`` and ``results.csv`` into a folder and return the rows' own values.

    Rows that earlier runs left there, of other students, protocols or methods, stay; one of the same is replaced. Whoever calls has
    claimed the folder, so that no other run's rows are lost. Each row of JSON carries its checksum.

    Raises:
        ResultsError: the rows that are there are not what was written.
    """
    file = folder / "results.json"
    before = validated_json(file, _ROWS, hint="move it away: what the cells hold is written anew.") if file.is_file() else []
    values = as_rows(rows, full_data)
    new = [_identity(row) for row in values]
    everything = [row for row in before if _identity(row) not in new] + values
    write_json(file, everything)
    flat = [{name: _cell(value) for name, value in row.items() if name not in _NESTED} for row in everything]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(flat[0]) if flat else [])
    writer.writeheader()
    writer.writerows(flat)
    write_bytes(folder / "results.csv", buffer.getvalue().encode())
    return values


def accuracy_table(rows: Sequence[Evaluation], full_data: Mapping[str, float] | None = None) -> str:
    """Return tables of last-epoch accuracies in percent, one for each student and protocol: hard and soft labels share no column.

    A row is mean +- std over all runs, with the best-epoch mean named so; std over sets and over trainings stand apart where both are
    known, HLR, IOR and LRS where one is.
    """
    groups: dict[str, list[Evaluation]] = {}
    for row in rows:
        groups.setdefault(f"{row.student}, {_labels(row)} labels, protocol {row.protocol.name}", []).append(row)
    return "\n".join(_table(heading, group, rows, full_data or {}) for heading, group in groups.items())


def _table(heading: str, rows: Sequence[Evaluation], everything: Sequence[Evaluation], full_data: Mapping[str, float]) -> str:
    lengths = ", ".join(dict.fromkeys(row.protocol.length for row in rows))
    table = Table(box=box.SIMPLE_HEAD, title=f"{heading} ({lengths})", title_justify="left")
    columns = ["IPC", "last-epoch accuracy %", "over sets", "over trainings", "best epoch % (chosen on test)", "runs", "HLR", "IOR", "LRS"]
    lines = [_line(row, everything, full_data) for row in sorted(rows, key=lambda row: row.ipc)]
    shown = [place for place in range(len(columns)) if any(line[place + 1] for line in lines)]
    table.add_column("method")
    for place in shown:
        table.add_column(columns[place], justify="right")
    for line in lines:
        table.add_row(line[0], *(line[place + 1] for place in shown))
    buffer = io.StringIO()
    Console(file=buffer, width=140).print(table)
    return buffer.getvalue().rstrip()


def _line(row: Evaluation, everything: Sequence[Evaluation], full_data: Mapping[str, float]) -> list[str]:
    """Return the cells of a row; a column in which all are empty is left out."""
    apart = row.distillation_std is not None and row.training_std is not None
    ranked = ranking(row, everything, full_data)
    return [
        row.name or row.method,
        str(row.ipc),
        f"{_percent(row.accuracy_mean)} ± {_percent(row.accuracy_std)}",
        f"± {_percent(row.distillation_std)}" if apart else "",
        f"± {_percent(row.training_std)}" if apart else "",
        _percent(row.best_epoch_mean),
        str(len(row.runs)),
        _percent(ranked.hlr),
        _percent(ranked.ior),
        "" if ranked.lrs is None else f"{ranked.lrs:.3f}",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _labels(row: Evaluation) -> str:
    return "soft" if row.protocol.soft else "hard"


def _identity(row: Mapping[str, Any]) -> list[Any]:
    return [row.get(name) for name in ("name", "ipc", "student", "image_size", "protocol_settings", "teacher")]


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value
