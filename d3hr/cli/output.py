"""What a command returns, and where it writes by default."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a command returns.

    Attributes:
        text: for people.
        values: the same for machines, as JSON values.
        folder: where the effective settings are saved, if the command wrote something.
    """

    text: str
    values: dict[str, Any]
    folder: Path | None = None


def sibling(distilled: str, suffix: str) -> Path:
    """Return the default path of a result about a set: next to the set and named after it; in the current folder for a Hub id."""
    path = Path(distilled)
    if not path.exists():
        return Path((path.name or "set") + suffix)
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(path.name + suffix)


def evaluation_folders(evaluation: Sequence[str], distilled: str) -> list[Path]:
    """Return the folders of ``--evaluation``, by default the one next to the set, where it holds results."""
    default = sibling(distilled, "-evaluation")
    return [Path(folder) for folder in evaluation] or ([default] if (default / "results.json").is_file() else [])
