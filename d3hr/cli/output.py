"""What a command has to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len


@dataclass(frozen=True)
class Result:
    """What a command has to say.

    Attributes:
        text: for people.
        values: the same for machines, as JSON values.
        folder: where the effective settings are saved, if the command wrote something.
    """

    text: str
    values: dict[str, Any]
    folder: Path | None = None


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Return rows as aligned text; ``right`` names the columns that align there."""
    lines = [headings, *rows]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(headings))]

    def cell(text: str, column: int) -> str:
        gap = " " * (widths[column] - cell_len(text))
        return gap + text if column in right else text + gap

    return "\n".join("  ".join(cell(text, column) for column, text in enumerate(line)).rstrip() for line in lines)
