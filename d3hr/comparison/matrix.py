"""Which trainings a comparison consists of, as data: methods x IPC x seeds x students x protocols.

A matrix is a YAML file of :class:`Matrix`'s fields; those that have a name are in the folder ``matrices``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from d3hr.errors import SettingsError, settings_error
from d3hr.evaluation.protocols import require_protocol
from d3hr.fileio.structured import read_mapping
from d3hr.methods.registry import METHODS

_FILES = Path(__file__).parent / "matrices"


class MatrixRow(BaseModel):
    """One method with its settings: a row of the table at every IPC, or at some."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    """A name of :data:`~d3hr.methods.registry.METHODS`."""
    name: str = ""
    """What the table calls it; by default the method."""
    settings: dict[str, Any] = {}
    """Settings that differ from the method's own."""
    ipc: tuple[int, ...] | None = None
    """Images per class that the row is made at; None is all of the matrix's. Two rows of one name may have different ones."""

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"unknown method; use one of: {', '.join(METHODS)}")
        return method

    @property
    def label(self) -> str:
        """What the table calls it."""
        return self.name or self.method


class Matrix(BaseModel):
    """A whole comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    """The question that it answers."""
    methods: tuple[MatrixRow, ...] = Field(min_length=1)
    """The rows, as names of methods or with ``method``, ``name`` and ``settings``."""
    ipc: tuple[int, ...] = Field(default=(1, 10), min_length=1)
    """Images per class."""
    distillation_seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Seeds of the sets; each makes a set of its own, for every method."""
    training_seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of the students trained on the first set; :meth:`seeds_of_set` has those of the others."""
    students: tuple[str, ...] = Field(default=("convnet3",), min_length=1)
    """The networks."""
    protocols: tuple[str, ...] = Field(default=("hard",), min_length=1)
    """How they are trained: names, or YAML files."""

    @field_validator("methods", mode="before")
    @classmethod
    def _named(cls, rows: Any) -> Any:
        return [{"method": row} if isinstance(row, str) else row for row in rows] if isinstance(rows, list | tuple) else rows

    @field_validator("ipc")
    @classmethod
    def _positive(cls, ipc: tuple[int, ...]) -> tuple[int, ...]:
        if min(ipc) < 1:
            raise ValueError("images per class must be at least 1")
        return ipc

    @field_validator("ipc", "distillation_seeds", "training_seeds", "students", "protocols")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice, and would count twice")
        return values

    @model_validator(mode="after")
    def _distinct(self) -> Matrix:
        named = [Counter(row.label for row in self.methods_at(ipc)) for ipc in self.ipc]
        twice = sorted({label for counts in named for label, count in counts.items() if count > 1})
        if twice:
            raise ValueError(f"two rows are called {twice[0]!r}: give each a name of its own")
        return self

    @property
    def trainings(self) -> int:
        """Number of trainings."""
        return sum(self.trainings_at(ipc) for ipc in self.ipc)

    def trainings_at(self, ipc: int) -> int:
        """Return the number of trainings with so many images per class."""
        seeds = len(self.distillation_seeds) * len(self.training_seeds)
        return len(self.methods_at(ipc)) * seeds * len(self.students) * len(self.protocols)

    def seeds_of_set(self, place: int) -> list[int]:
        """Return the training seeds of the sets of one distillation seed, by its place among them, from 0; no two places share a seed.

        Every set is trained on with seeds of its own, so that a method which draws nothing still shows the spread of training.
        """
        span = max(self.training_seeds) - min(self.training_seeds) + 1
        return [place * span + seed for seed in self.training_seeds]

    def methods_at(self, ipc: int) -> tuple[MatrixRow, ...]:
        """Return the rows that are made at so many images per class."""
        return tuple(row for row in self.methods if row.ipc is None or ipc in row.ipc)


def matrix_names() -> tuple[str, ...]:
    """Return the names that :func:`read_matrix` knows."""
    return tuple(sorted(file.stem for file in _FILES.glob("*.yaml")))


def read_matrix(name: str | Path, changes: Mapping[str, Any] | None = None) -> Matrix:
    """Return the matrix of one of :func:`matrix_names`, or of a file that ends in ``.yaml``; changes other than None replace its fields."""
    file = Path(name) if str(name).endswith((".yaml", ".yml")) else _FILES / f"{name}.yaml"
    if not file.is_file():
        raise SettingsError(
            "Unknown matrix.", found=repr(str(name)), hint=f"use one of: {', '.join(matrix_names())}; or a .yaml file of your own."
        )
    fields = read_mapping(file, "matrix", "write a line 'field: value' for each field.")
    return matrix_from({**fields, **{field: value for field, value in (changes or {}).items() if value is not None}})


def matrix_from(fields: Mapping[str, Any]) -> Matrix:
    """Return the matrix with these fields; what is wrong with one is raised in words, as :class:`SettingsError`."""
    try:
        matrix = Matrix(**fields)
    except ValidationError as error:
        raise settings_error(error, "matrix.", f"the fields of a matrix are: {', '.join(Matrix.model_fields)}.") from None
    for protocol in matrix.protocols:
        require_protocol(protocol)
    return matrix
