"""What a command returns, and where it writes by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3hr.fileio.names import sibling

if TYPE_CHECKING:
    from d3hr.data.dataset import ImageData


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


def next_evaluation(out: str, images: ImageData | None = None) -> str:
    """Return the command that evaluates a set: on the test split of its images, else their validation split, else a folder to be named."""
    from d3hr.data.splits import held_out_split

    held_out = held_out_split(images.splits, images.split, "test", "validation") if images else None
    test = f"{images.source} --test-split {held_out}" if images and held_out else "FOLDER_OF_TEST_IMAGES"
    return f"Next: d3hr evaluate {out} --test {test}"


def evaluation_folders(evaluation: Sequence[str], distilled: str) -> list[Path]:
    """Return the folders of ``--evaluation``, by default the one next to the set, where it holds results."""
    default = sibling(distilled, "-evaluation")
    return [Path(folder) for folder in evaluation] or ([default] if (default / "results.json").is_file() else [])
