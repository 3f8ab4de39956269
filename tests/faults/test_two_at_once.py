"""Two runs never work in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr.__main__ import main
from d3hr.errors import OutputError
from d3hr.fileio.locking import locked
from d3hr.fileio.staging import StagedFolder, lock_workdir
from tests.conftest import tree
from tests.faults.conftest import Place
from tests.processes import finish, kill, main_paused_before_search, start, wait_for


@pytest.mark.slow
def test_the_second_is_told_and_the_first_is_not_disturbed(place: Place, tmp_path: Path) -> None:
    """While the first run stands in the middle of its work, the second ends with code 2 and names the first's process."""
    out, gate, log = tmp_path / "out", tmp_path / "gate", tmp_path / "log"
    first = start(main_paused_before_search, place.distill(out), gate, log=log)
    wait_for(gate.with_suffix(".reached").exists, first)
    second = start(main, place.distill(out), log=tmp_path / "second.log")
    assert finish(second) == 2
    said = (tmp_path / "second.log").read_text()
    assert f"Another run works in {out}.partial" in said
    assert f"process {first.pid} on" in said
    gate.touch()
    assert finish(first) == 0, log.read_text()
    assert finish(start(main, place.distill(tmp_path / "whole"), log=log)) == 0
    assert tree(out / "train") == tree(tmp_path / "whole" / "train")
    assert not (out / ".lock").exists()


@pytest.mark.slow
def test_the_lock_of_a_killed_run_holds_nobody_up(place: Place, tmp_path: Path) -> None:
    out, gate, log = tmp_path / "out", tmp_path / "gate", tmp_path / "log"
    first = start(main_paused_before_search, place.distill(out), gate, log=log)
    wait_for(gate.with_suffix(".reached").exists, first)
    kill(first)
    assert (tmp_path / "out.partial" / ".lock").exists()
    assert finish(start(main, place.distill(out), log=log)) == 0
    assert finish(start(main, place.distill(tmp_path / "whole"), log=log)) == 0
    assert tree(out / "train") == tree(tmp_path / "whole" / "train")


@pytest.mark.slow
def test_started_together(place: Place, tmp_path: Path) -> None:
    """Whoever comes first works; the other is told, or finds the set finished."""
    out, log = tmp_path / "out", tmp_path / "log"
    both = [start(main, place.distill(out), log=log) for _ in range(2)]
    codes = [finish(process) for process in both]
    assert sorted(codes) in ([0, 0], [0, 2]), log.read_text()
    assert finish(start(main, place.distill(tmp_path / "whole"), log=log)) == 0
    assert tree(out / "train") == tree(tmp_path / "whole" / "train")


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    """However the block ends; and a lock taken inside another folder's does not matter to it."""
    with pytest.raises(KeyboardInterrupt), lock_workdir(tmp_path / "grow", {}), StagedFolder(tmp_path / "grow" / "set", {}):
        with pytest.raises(OutputError, match=r"(?s)Another run works in .*grow\.\n.*process \d+ on"), lock_workdir(tmp_path / "grow", {}):
            pass
        with pytest.raises(OutputError, match=r"set\.partial"):
            StagedFolder(tmp_path / "grow" / "set", {})
        raise KeyboardInterrupt
    with lock_workdir(tmp_path / "grow", {}), StagedFolder(tmp_path / "grow" / "set", {}) as stage:
        assert stage.resumed


def test_what_appeared_while_waiting_for_the_lock_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the finished folder and the lock, another run publishes: this one finds it, and leaves nothing behind."""
    from d3hr.fileio import staging
    from d3hr.fileio.locking import lock_folder as lock

    def late(folder: Path, *, wait: bool = False) -> object:
        monkeypatch.setattr(staging, "lock_folder", lock)
        with StagedFolder(tmp_path / "out", {"a": 1}) as other:
            (other.path / "piece").touch()
            other.commit()
        folder.mkdir()
        return lock(folder, wait=wait)

    monkeypatch.setattr(staging, "lock_folder", late)
    with StagedFolder(tmp_path / "out", {"a": 1}) as stage:
        assert stage.finished
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(tree(tmp_path / "out")) == ["SHA256SUMS", "piece", "run.json"]


def test_a_lock_left_in_a_finished_folder_is_removed(tmp_path: Path) -> None:
    """A run was killed just after its folder appeared; a lock that somebody holds stays."""
    with StagedFolder(tmp_path / "out", {}) as stage:
        stage.commit()
    with locked(tmp_path / "out"):
        assert StagedFolder(tmp_path / "out", {}).finished
        assert (tmp_path / "out" / ".lock").exists()
    assert StagedFolder(tmp_path / "out", {}).finished
    assert not (tmp_path / "out" / ".lock").exists()
