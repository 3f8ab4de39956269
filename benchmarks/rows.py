"""Accuracy rows as a benchmark keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from d3hr.comparison.tables import as_rows
from d3hr.evaluation.results import Evaluation


def kept_rows(rows: Sequence[Evaluation], *left_out: str) -> list[dict[str, Any]]:
    """Return rows as JSON values, without their confusion matrices and what else is ``left_out``."""
    return [{key: value for key, value in row.items() if key not in ("confusion", *left_out)} for row in as_rows(rows, {})]
