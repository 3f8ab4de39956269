"""A small data set, its prior, and a distillation of it as a command."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MakeFolder, untrained_prior

CLASSES = ("ant", "bee", "cat", "dog")


def flip_bit(path: Path, seed: object) -> None:
    """Flip one bit of a file, anywhere."""
    content = bytearray(path.read_bytes())
    place = random.Random(f"{path.name} {seed}").randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(content))


@dataclass(frozen=True)
class Place:
    """A folder with ``images`` and a ``prior``."""

    folder: Path

    def distill(self, out: Path, *, ipc: int = 3, steps: int = 16, level: int = 10, candidates: int = 2000) -> list[str]:
        """Return the arguments of a small distillation."""
        changes = ["--steps", str(steps), "--level", str(level), "--num-candidates", str(candidates), "--batch-size", "2"]
        images, prior = self.folder / "images", self.folder / "prior"
        return ["distill", str(images), "--prior", str(prior), "--out", str(out), "--ipc", str(ipc), "--strategy", "search", *changes]


@pytest.fixture
def place(image_folder: MakeFolder, tmp_path: Path) -> Place:
    image_folder(dict.fromkeys(CLASSES, 6))
    untrained_prior(CLASSES).save_pretrained(tmp_path / "prior")
    return Place(tmp_path)
