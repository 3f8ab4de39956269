"""Accuracies that an evaluation or a comparison kept: rows of ``results.json``, and which of them may share a chart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from d3hr.fileio.structured import validated_json
from d3hr.methods.registry import METHODS

Share = Annotated[float, Field(ge=0, le=1)]
METHOD_NAMES = {**{name: method.summary for name, method in METHODS.items()}, "folder": "images of this folder"}
"""What tables call a method that gives itself no name."""


class Test(BaseModel):
    """The real images that students were tested on."""

    model_config = ConfigDict(frozen=True)

    source: str | None = None
    images: int | None = None


class ResultRow(BaseModel):
    """One method at one number of images per class, with one student and protocol; accuracies are shares from 0 to 1."""

    model_config = ConfigDict(frozen=True)

    method: str
    name: str | None = None
    settings: dict[str, Any] | None = None
    """Settings of the distillation."""
    ipc: int = Field(ge=1)
    student: str
    image_size: int | None = None
    """Side in pixels that the student saw; None is the set's own."""
    protocol: str
    labels: Literal["hard", "soft"]
    protocol_settings: dict[str, Any] | None = None
    accuracy_mean: Share
    """Last epoch, over all runs."""
    accuracy_std: Annotated[float, Field(ge=0)]
    seeds: int = Field(ge=1)
    """Number of runs."""
    distillation_seeds: tuple[int, ...] | None = None
    training_seeds: tuple[int, ...] | None = None
    distillation_std: float | None = None
    training_std: float | None = None
    best_epoch_mean: Share | None = None
    top5_mean: Share | None = None
    per_class: dict[str, Share | None] | None = None
    class_names: tuple[str, ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    """Counts; rows are true classes, columns predictions, both in the order of ``class_names``."""
    hlr: float | None = None
    ior: float | None = None
    lrs: float | None = None
    test: Test | None = None

    @model_validator(mode="after")
    def _square(self) -> ResultRow:
        if self.confusion is not None and self.class_names is not None:
            side = len(self.class_names)
            if [len(row) for row in self.confusion] != [side] * side:
                raise ValueError(f"the confusion matrix is not {side} x {side}, as its class names are")
            if min((count for row in self.confusion for count in row), default=0) < 0:
                raise ValueError("the confusion matrix has a negative count")
        return self

    @property
    def title(self) -> str:
        """What a table calls it."""
        own = self.name if self.name != self.method else None
        return own or METHOD_NAMES.get(self.method, self.method)

    @property
    def known_classes(self) -> set[str]:
        """Classes that the row speaks of by name; empty if it names none."""
        return set(self.class_names or self.per_class or ())


_ROWS = TypeAdapter(list[ResultRow])


def read_results(folders: Sequence[Path]) -> list[ResultRow]:
    """Return the rows of every folder's ``results.json``, each row once.

    Raises:
        ResultsError: a file is missing or damaged.
    """
    rows: list[ResultRow] = []
    for folder in folders:
        read = validated_json(folder / "results.json", _ROWS, hint="make it with 'd3hr evaluate' or 'd3hr compare'.")
        rows += [row for row in read if row not in rows]
    return rows


@dataclass(frozen=True)
class Comparison:
    """Rows that may be compared: one student, protocol and kind of labels, and one set of test images.

    Attributes:
        rows: by IPC, then in order of appearance.
        numbered: 2, 3, ... where protocols of one name differ in their settings at the same IPC, else 1.
    """

    student: str
    protocol: str
    labels: str
    image_size: int | None
    test: Test | None
    rows: tuple[ResultRow, ...]
    numbered: int = 1

    @property
    def title(self) -> str:
        """Student, protocol, labels and side, in words."""
        again = f" (settings {self.numbered})" if self.numbered > 1 else ""
        side = f", students see {self.image_size} px" if self.image_size else ""
        return f"{self.student}, {self.labels} labels, protocol {self.protocol}{again}{side}"

    @property
    def protocols(self) -> list[tuple[list[int], dict[str, Any]]]:
        """Every distinct setting of the protocol, with the IPCs it holds for."""
        found: dict[str, tuple[set[int], dict[str, Any]]] = {}
        for row in self.rows:
            settings = row.protocol_settings or {}
            found.setdefault(_text(settings), (set(), settings))[0].add(row.ipc)
        return [(sorted(ipcs), settings) for ipcs, settings in found.values() if settings]


def comparisons(rows: Iterable[ResultRow]) -> list[Comparison]:
    """Return the rows in groups that may share a chart and a column.

    A protocol's settings may depend on the IPC; where they differ at one IPC, rows of different settings part.
    """
    grouped: dict[tuple[Any, ...], list[ResultRow]] = {}
    for row in rows:
        test = (row.test.source, row.test.images) if row.test else None
        grouped.setdefault((row.student, row.protocol, row.labels, row.image_size, test), []).append(row)
    found = []
    for members in grouped.values():
        for number, part in enumerate(_of_one_protocol(members), start=1):
            first = part[0]
            ordered = tuple(sorted(part, key=lambda row: row.ipc))
            found.append(Comparison(first.student, first.protocol, first.labels, first.image_size, first.test, ordered, number))
    return found


def _of_one_protocol(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """Part rows so that no part holds two settings at one IPC: the n-th setting of each IPC joins the n-th part."""
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
