"""Which rows of results may share a chart, what the page calls them, and what they say in sentences."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d3hr.evaluation.results import ResultRow
from d3hr.formatting import percent
from d3hr.methods.registry import METHODS

RANDOM_REAL = "random_real"
TIE = 0.05
"""Points of accuracy below which a difference is invisible at one decimal."""
METHOD_TITLES = {**{name: method.summary for name, method in METHODS.items()}, "folder": "images of this folder"}
"""Method -> the title of a row that has no name of its own."""


def row_title(row: ResultRow) -> str:
    """Return what the page calls a row: its name or, if it has none, what its method does."""
    own = row.name if row.name != row.method else None
    return own or METHOD_TITLES.get(row.method, row.method)


@dataclass(frozen=True)
class ResultGroup:
    """Rows that may be compared: of one student, protocol, kind of labels and image size.

    Attributes:
        rows: by IPC, then in order of appearance; at least one.
        numbered: 2, 3, ... if protocols of one name differ in their settings at the same IPC, else 1.
    """

    rows: tuple[ResultRow, ...]
    numbered: int = 1

    @property
    def title(self) -> str:
        """Student, labels, protocol and image size, in words."""
        row = self.rows[0]
        again = f" (settings {self.numbered})" if self.numbered > 1 else ""
        side = f", students see {row.image_size} px" if row.image_size else ""
        return f"{row.student}, {row.labels} labels, protocol {row.protocol}{again}{side}"

    @property
    def protocols(self) -> list[tuple[list[int], dict[str, Any]]]:
        """Every distinct setting of the protocol, with the IPCs that it is for."""
        distinct: dict[str, tuple[set[int], dict[str, Any]]] = {}
        for row in self.rows:
            settings = row.protocol_settings or {}
            distinct.setdefault(_text(settings), (set(), settings))[0].add(row.ipc)
        return [(sorted(ipcs), settings) for ipcs, settings in distinct.values() if settings]


def group_rows(rows: Iterable[ResultRow]) -> list[ResultGroup]:
    """Group rows that may share a chart and a table.

    A protocol's settings may depend on the IPC; rows whose settings differ at one IPC go into different groups.
    """
    grouped: dict[tuple[Any, ...], list[ResultRow]] = {}
    for row in rows:
        grouped.setdefault((row.student, row.protocol, row.labels, row.image_size), []).append(row)
    return [
        ResultGroup(tuple(sorted(part, key=lambda row: row.ipc)), number)
        for members in grouped.values()
        for number, part in enumerate(_of_one_protocol(members), start=1)
    ]


def _of_one_protocol(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """Divide rows so that no part holds two settings at one IPC: the n-th setting of each IPC goes into the n-th part."""
    parts: list[list[ResultRow]] = []
    seen: dict[int, list[str]] = {}
    for row in rows:
        settings = seen.setdefault(row.ipc, [])
        text = _text(row.protocol_settings or {})
        if text not in settings:
            settings.append(text)
        place = settings.index(text)
        if place == len(parts):
            parts.append([])
        parts[place].append(row)
    return parts


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def summary(group: ResultGroup, own: ResultRow) -> list[str]:
    """Return sentences that compare a set's row with random real images and with the best other method, at the same IPC.

    Args:
        group: rows that may be compared.
        own: the set's row, one of them.
    """
    others = [row for row in group.rows if row.ipc == own.ipc and row.method != own.method]
    real = [row for row in others if row.method == RANDOM_REAL]
    rest = sorted((row for row in others if row.method != RANDOM_REAL), key=lambda row: -row.accuracy_mean)
    sentences = [difference(own, row) for row in [*real[:1], *rest[:1]]]
    right = f"{_accuracy(own)} of real test images are classified right"
    if not real and own.method != RANDOM_REAL:
        sentences.insert(0, f"{right}; random real images of the same number were not measured.")
    return sentences or [f"{right}."]


def difference(own: ResultRow, other: ResultRow) -> str:
    """Say by how many points two accuracies differ, and whether that is more than the spread of the runs.

    The spread is sqrt(a^2 + b^2) of the two standard deviations a and b over runs.
    """
    gap = 100 * (own.accuracy_mean - other.accuracy_mean)
    spread = 100 * math.hypot(own.accuracy_std, other.accuracy_std)
    figures = f"{_accuracy(own)} against {_accuracy(other)}"
    if abs(gap) < TIE:
        return f"Level with {row_title(other)}: {figures}."
    if min(own.seeds, other.seeds) < 2:
        doubt = "with one run, the spread is not known"
    else:
        doubt = f"{'outside' if abs(gap) > spread else 'within'} the spread of the runs"
    return f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'} {row_title(other)}: {figures}, {doubt}."


def _accuracy(row: ResultRow) -> str:
    """Return a row's accuracy with its spread: ``91.7 ± 1.0 %``."""
    spread = f" ± {percent(row.accuracy_std)}" if row.seeds > 1 else ""
    return f"{percent(row.accuracy_mean)}{spread} %".replace(" ", "\N{NO-BREAK SPACE}")
