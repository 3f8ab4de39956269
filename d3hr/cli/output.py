"""What a command has to say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
