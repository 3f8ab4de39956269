"""Evaluates sets in rows: entries of one name and IPC share a row, every training is one cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from d3hr.comparison.cells import Setting, evaluate_once
from d3hr.data import ImageData
from d3hr.evaluation.results import Evaluation
from d3hr.progress import SILENT, Progress
from d3hr.storage import DistilledSet


@dataclass(frozen=True)
class Entry:
    """A set, and the seeds of the students to train on it.

    Attributes:
        distilled: the set.
        seeds: training seeds.
        name: what the table calls its row; by default its method.
    """

    distilled: DistilledSet | ImageData
    seeds: Sequence[int]
    name: str | None = None


def compare_entries(
    entries: Iterable[Entry],
    test: ImageData,
    settings: Sequence[Setting],
    *,
    cells: Path,
    total: int | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate every entry in every setting; entries of one name and IPC form one row a setting, in order of first appearance.

    Args:
        entries: the sets, which may be made as they are asked for.
        test: real images of the same classes.
        settings: students and protocols.
        cells: folder that keeps the result of each training; what lies there is not trained again.
        total: number of trainings, where the entries are not yet known.
        progress: where to report.
    """
    cells.mkdir(parents=True, exist_ok=True)
    rows: dict[tuple[int, str, int], Evaluation] = {}
    if total is None:
        entries = list(entries)
        total = len(settings) * sum(len(entry.seeds) for entry in entries)
    done = 0
    with progress.bar("training students", total) as bar:
        for entry in entries:
            for index, setting in enumerate(settings):
                for seed in entry.seeds:
                    bar.update(done, note=_note(entry, setting))
                    cell = replace(evaluate_once(entry.distilled, test, setting, seed, cells), name=entry.name)
                    key = (index, entry.name or cell.method, cell.ipc)
                    known = rows.get(key)
                    rows[key] = cell if known is None else replace(known, runs=known.runs + cell.runs)
                    done += 1
                    bar.update(done, note=_note(entry, setting))
    return [rows[key] for key in sorted(rows, key=lambda key: key[0])]


def _note(entry: Entry, setting: Setting) -> str:
    method = entry.distilled.manifest.method if isinstance(entry.distilled, DistilledSet) else "folder"
    return f"{entry.name or method}, {setting.student}, {setting.protocol.name}"
