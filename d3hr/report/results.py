"""Which rows of results may share a chart, what the page calls them, and what they say in sentences."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from d3hr.evaluation.results import ResultRow
from d3hr.formatting import percent
from d3hr.methods.registry import METHODS
from d3hr.sets.packing import packed_in_words

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
    """Rows that may be compared, at least one: of one student, protocol, kind of labels, image size and packing."""

    rows: tuple[ResultRow, ...]
    """By IPC, then in order of appearance."""
    numbered: int = 1
    """2, 3, ... if protocols of one name differ in their settings at the same IPC, else 1."""

    @property
    def title(self) -> str:
        """Student, labels, protocol, image size and packing, in words."""
        row = self.rows[0]
        again = f" (settings {self.numbered})" if self.numbered > 1 else ""
        side = f", students see {row.image_size} px" if row.image_size else ""
        packed = f", {packed_in_words(row.pack)}" if row.pack > 1 else ""
        return f"{row.student}, {row.labels} labels, protocol {row.protocol}{again}{side}{packed}"

    @property
    def protocols(self) -> list[tuple[list[int], dict[str, Any]]]:
        """Every distinct setting of the protocol, with the IPCs that it is for."""
        distinct: list[dict[str, Any]] = []
        for row in self.rows:
            if row.protocol_settings and row.protocol_settings not in distinct:
                distinct.append(row.protocol_settings)
        return [(sorted({row.ipc for row in self.rows if row.protocol_settings == settings}), settings) for settings in distinct]


def group_rows(rows: Iterable[ResultRow]) -> list[ResultGroup]:
    """Group rows that may share a chart and a table.

    A protocol's settings may depend on the IPC. The n-th settings of each IPC go into the n-th group of their protocol, so that no group
    holds two settings at one IPC.
    """
    grouped: dict[tuple[Any, ...], dict[int, list[ResultRow]]] = {}
    settings_at: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        kind = (row.student, row.protocol, row.labels, row.image_size, row.pack)
        distinct, settings = settings_at.setdefault((*kind, row.ipc), []), row.protocol_settings or {}
        if settings not in distinct:
            distinct.append(settings)
        grouped.setdefault(kind, {}).setdefault(distinct.index(settings) + 1, []).append(row)
    return [
        ResultGroup(tuple(sorted(members, key=lambda row: row.ipc)), number)
        for numbered in grouped.values()
        for number, members in numbered.items()
    ]


def summary(group: ResultGroup, own: ResultRow) -> list[str]:
    """Return sentences that compare a set's row, one of the group, with random real images and the best other method, at the same IPC."""
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
