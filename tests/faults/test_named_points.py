"""A run that is killed and started again ends with the bytes of one that was left alone."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d3hr import ImageData, Prior, distill, load_images
from d3hr.distillation import tasks
from d3hr.distillation.chunks import ChunkStatistics, ClassChunk
from d3hr.distillation.tasks import StatisticsEstimator
from d3hr.fileio import rows, staging
from d3hr.sets import writer
from tests.conftest import MakeFolder, tree, untrained_prior
from tests.processes import finish, start

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {"ipc": 3, "steps": 8, "statistics_level": 5, "denoising_level": 5, "num_candidates": 200}


def dies(target: str, count: int, folder: Path, prior: Path, out: Path) -> int:
    """Distil, and die by SIGKILL at the n-th call of a function, half-way through it where it writes a file."""
    points: dict[str, tuple[Any, str, Callable[..., object]]] = {
        "invert": (tasks, "invert", lambda *_: None),
        "statistics": (rows, "safe_open", lambda path: Path(path).write_bytes(b"half")),
        "search": (writer, "search_mixtures", lambda *_: None),
        "image": (Path, "write_bytes", lambda path, content: path.open("wb").write(content[: len(content) // 2])),
        "publish": (staging.StagedFolder, "commit", lambda *_, **__: None),
    }
    owner, name, before = points[target]
    inner, calls = getattr(owner, name), [0]

    def wrapper(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            before(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **named)

    setattr(owner, name, wrapper)
    distill(load_images(folder), Prior.from_pretrained(prior), out, **SETTINGS)
    return 0


@pytest.fixture
def inputs(image_folder: MakeFolder, tmp_path: Path) -> tuple[Path, Path]:
    root = image_folder({"ant": 5, "bee": 5, "cat": 5})
    untrained_prior(("ant", "bee", "cat")).save_pretrained(tmp_path / "prior")
    return root, tmp_path / "prior"


def result(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name.startswith(("train", "statistics"))}


def test_killed_at_five_points_of_its_life(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    """While inverting, while writing statistics, before the search, half-way through an image, before the set appears: each kill
    leaves no set, and the run after the last one ends as if nothing had happened."""
    root, prior = inputs
    distill(load_images(root), Prior.from_pretrained(prior), tmp_path / "whole", **SETTINGS)
    for target, count in [("invert", 2), ("statistics", 2), ("search", 1), ("image", 6), ("publish", 1)]:
        process = start(dies, target, count, root, prior, tmp_path / "killed", log=tmp_path / "log")
        assert finish(process) == -signal.SIGKILL, (target, (tmp_path / "log").read_text())
        assert not (tmp_path / "killed").exists()
    assert count_statistics(tmp_path / "killed.partial") == 3
    distill(load_images(root), Prior.from_pretrained(prior), tmp_path / "killed", **SETTINGS)
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


def count_statistics(partial: Path) -> int:
    return len(list((partial / "statistics").glob("*.safetensors")))


def test_finished_classes_are_not_inverted_again(inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the second class, the next run inverts the second and third only."""
    root, prior_path = inputs
    images, prior = load_images(root), Prior.from_pretrained(prior_path)
    open_work = StatisticsEstimator.open
    seen: list[str] = []

    def watched(work: StatisticsEstimator) -> Callable[[ClassChunk], ChunkStatistics]:
        estimate = open_work(work)

        def interrupted(chunk: ClassChunk) -> ChunkStatistics:
            seen.append(chunk.class_name)
            if seen == ["ant", "bee"]:
                raise KeyboardInterrupt
            return estimate(chunk)

        return interrupted

    monkeypatch.setattr(StatisticsEstimator, "open", watched)
    with pytest.raises(KeyboardInterrupt):
        distill(images, prior, tmp_path / "set", **SETTINGS)
    distill(images, prior, tmp_path / "set", **SETTINGS)
    assert seen == ["ant", "bee", "bee", "cat"]
    assert isinstance(images, ImageData)
