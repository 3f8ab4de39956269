"""Classes are written while the next ones are drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from d3hr.data.ahead import DECODERS
from d3hr.fileio.staging import StagedFolder
from d3hr.sets import writer
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.manifest import Manifest
from d3hr.sets.writer import write_set

NAMES = tuple("abcdef")
MANIFEST = Manifest.of(method="prior_only", class_names=NAMES, ipc=1, image_size=8, settings={})


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DECODERS, "1")


def picture(name: str) -> Tensor:
    return torch.full((1, 3, 8, 8), NAMES.index(name) / 5 - 0.5)


def test_a_class_is_written_while_the_next_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each class is drawn only when the one before is being written, and at most two drawn ones wait."""
    begun = {name: threading.Event() for name in NAMES}
    write, written = writer._write_class, list[str]()

    def watch(folder: Path, images: Tensor) -> None:
        begun[folder.name].set()
        write(folder, images)
        written.append(folder.name)

    def draw(names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for index, name in enumerate(names):
            assert index == 0 or begun[names[index - 1]].wait(10)
            assert len(written) >= index - 2
            yield name, picture(name)

    monkeypatch.setattr(writer, "_write_class", watch)
    with StagedFolder(tmp_path / "set", MANIFEST.key()) as stage:
        write_set(stage, MANIFEST, draw)
    made = DistilledSet.load(tmp_path / "set")
    assert written == list(NAMES)
    assert torch.equal(made.images[:, 0, 0, 0].float(), ((torch.arange(6) / 5 + 0.5) * 127.5).round())


def test_what_was_drawn_is_kept_when_drawing_fails(tmp_path: Path) -> None:
    drawn = list[str]()

    def draw(names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        for name in names:
            if len(drawn) == 3:
                raise RuntimeError("power cut")
            drawn.append(name)
            yield name, picture(name)

    with pytest.raises(RuntimeError, match="power cut"), StagedFolder(tmp_path / "set", MANIFEST.key()) as stage:
        write_set(stage, MANIFEST, draw)
    assert drawn == list("abc")
    with StagedFolder(tmp_path / "set", MANIFEST.key()) as stage:
        write_set(stage, MANIFEST, lambda names: ((name, picture(name)) for name in drawn_now(names)))

    assert DistilledSet.load(tmp_path / "set").counts == dict.fromkeys(NAMES, 1)


def drawn_now(names: Sequence[str]) -> Sequence[str]:
    """The classes that an earlier run has not finished."""
    assert list(names) == list("def")
    return names


def test_an_error_of_writing_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, images: Tensor) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(writer, "_write_class", fail)
    with pytest.raises(OSError, match="no space left"), StagedFolder(tmp_path / "set", MANIFEST.key()) as stage:
        write_set(stage, MANIFEST, lambda names: ((name, picture(name)) for name in names))
