from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from d3hr.errors import OutputError
from d3hr.fileio.atomic import atomic_file, write_tensors
from d3hr.fileio.staging import StagedFolder, lock_workdir, require_free_or_ours


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with atomic_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tensors_that_do_not_fit_on_the_disk_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors reports a full disk as an error of its own kind."""

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("d3hr.fileio.atomic.save_file", full)
    with pytest.raises(OutputError, match=r"x\.safetensors cannot be written") as caught:
        write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    assert "No space left" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_when_it_is_published(tmp_path: Path) -> None:
    with StagedFolder(tmp_path / "out", {"a": 1}) as stage:
        (stage.path / "piece").write_text("x")
        (stage.path / "work").mkdir()
        assert not stage.out.exists()
        assert not stage.resumed
    with StagedFolder(tmp_path / "out", {"a": 1}) as again:
        assert again.resumed
        again.commit(exclude=["work", "never made"])
    assert sorted(path.name for path in stage.out.iterdir()) == ["SHA256SUMS", "piece", "run.json"]
    assert not stage.path.exists()
    assert StagedFolder(tmp_path / "out", {"a": 1}).finished


def test_leftovers_of_a_killed_write_are_removed(tmp_path: Path) -> None:
    with StagedFolder(tmp_path / "out", {}) as stage:
        (stage.path / ".file.tmp").write_text("half")
    with StagedFolder(tmp_path / "out", {}):
        assert not (stage.path / ".file.tmp").exists()


def test_what_is_there_is_never_touched(tmp_path: Path) -> None:
    """A folder or file of somebody's, another run's result, and another run's unfinished work are refused and stay as they are."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    StagedFolder(tmp_path / "done", {"a": 1}).commit()
    StagedFolder(tmp_path / "open", {"a": 1}).close()
    (tmp_path / "odd.partial").mkdir()
    (tmp_path / "odd.partial" / "x").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    for name, words in [
        ("mine", "already exists"),
        ("file", "already exists"),
        ("done", "a was 1, is 2"),
        ("open", "a was 1, is 2"),
        ("odd", "not a run of d3hr"),
    ]:
        with pytest.raises(OutputError, match=words):
            StagedFolder(tmp_path / name, {"a": 2})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_of_other_settings_is_told_which(tmp_path: Path) -> None:
    """Nested ones by their whole names, long values in part."""
    StagedFolder(tmp_path / "out", {"settings": {"ipc": 10, "seed": 0}, "data": "a" * 64}).commit()
    with pytest.raises(OutputError) as caught:
        StagedFolder(tmp_path / "out", {"settings": {"ipc": 50, "seed": 0, "rank": 2}, "data": "b" * 64})
    expected = ["settings.ipc was 10, is 50", "data was " + "a" * 40 + "..., is " + "b" * 40 + "...", "settings.rank was not set, is 2"]
    assert caught.value.found.split("; ") == expected


def test_the_current_folder_may_be_used_if_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with StagedFolder(".", {"a": 1}) as stage:
        stage.commit()
    assert (tmp_path / "here" / "run.json").is_file()
    with pytest.raises(OutputError, match="a was 1, is 2"):
        StagedFolder("../here/.", {"a": 2})


def test_what_is_no_result_is_refused_before_any_work(tmp_path: Path) -> None:
    """What only another run's key could refuse is left to that."""
    StagedFolder(tmp_path / "done", {"a": 1}).commit()
    (tmp_path / "mine").mkdir()
    for free in ("done", "mine", "new"):
        require_free_or_ours(tmp_path / free)
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="no result of d3hr"):
        require_free_or_ours(tmp_path / "mine")


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with StagedFolder(tmp_path / "out", {}) as stage:
        stage.commit()
    assert stage.out.is_dir()


def test_claim_keeps_a_growing_folder_to_one_work(tmp_path: Path) -> None:
    with lock_workdir(tmp_path / "grow", {"a": 1}) as resumed:
        assert not resumed
    with lock_workdir(tmp_path / "grow", {"a": 1}) as resumed:
        assert resumed
    with pytest.raises(OutputError, match="other settings"), lock_workdir(tmp_path / "grow", {"a": 2}):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be created"), lock_workdir(tmp_path / "file", {}):
        pass
