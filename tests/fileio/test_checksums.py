"""Small files with one bit after the other flipped; links; what is listed for others."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from d3hr.data.codec import is_sound_png
from d3hr.errors import DamagedFile, OutputError
from d3hr.fileio.atomic import load_if_valid, read_checkpoint, read_json, read_tensors, write_json, write_tensors
from d3hr.fileio.checksums import verify
from d3hr.fileio.staging import StagedFolder, lock_workdir
from tests.conftest import RecordingProgress


def flips(path: Path, stride: int = 1) -> Iterator[bytes]:
    """Give a file each (or every n-th) of its bits flipped in turn, then each length below its own, and yield what it then holds; at
    the end it is whole again."""
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), stride):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(content))
        yield bytes(content)
    for length in range(0, len(whole), stride):
        path.write_bytes(whole[:length])
        yield whole[:length]
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "content",
    [{"level": 3, "share": 0.25, "odd": [math.inf, "ä", None]}, [{"name": "a", "ipc": 1}, {"name": "b", "ipc": 10}]],
)
def test_json_is_what_was_written_or_refused(content: object, tmp_path: Path) -> None:
    """What is read from a flipped file equals what was written (a JSON value may be written in several ways), or is refused."""
    path = tmp_path / "x.json"
    write_json(path, content)
    assert read_json(path) == content
    refused = 0
    for _ in flips(path, stride=5):
        try:
            found = read_json(path)
        except DamagedFile:
            refused += 1
            continue
        assert found == content
    assert refused > len(path.read_bytes())


def test_json_of_others_is_taken_as_it_is(tmp_path: Path) -> None:
    for content in ({"a": 1}, [1, {"b": 2}], "text", None):
        (tmp_path / "x.json").write_text(json.dumps(content))
        assert read_json(tmp_path / "x.json") == content
        write_json(tmp_path / "y.json", content, checksum=False)
        assert json.loads((tmp_path / "y.json").read_text()) == content


def test_tensors_are_what_was_written_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {
        "a": torch.tensor([[1.5, -2.0]]),
        "step": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "half": torch.ones(1, dtype=torch.bfloat16),
    }
    write_tensors(path, tensors, {"step": "12"})
    refused = 0
    for _ in flips(path, stride=5):
        try:
            found, about = read_checkpoint(path)
        except DamagedFile:
            refused += 1
            continue
        assert found.keys() == tensors.keys()
        assert all(found[name].dtype == value.dtype and found[name].equal(value) for name, value in tensors.items())
        assert about == {"step": "12"}
    assert refused > len(path.read_bytes())
    found, about = read_checkpoint(path)
    assert found["a"].equal(tensors["a"])
    assert about == {"step": "12"}


def test_tensors_of_earlier_versions_are_taken_as_they_are(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", {"step": "3"})
    assert read_tensors(tmp_path / "x.safetensors")["a"].equal(torch.ones(2))


def test_no_flip_in_an_image_is_overlooked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(buffer, "png")
    path = tmp_path / "x.png"
    path.write_bytes(buffer.getvalue())
    for content in flips(path):
        assert not is_sound_png(content), content
    assert is_sound_png(path.read_bytes())
    assert not is_sound_png(buffer.getvalue() + b"more")


def test_a_damaged_piece_is_removed_and_this_is_said(tmp_path: Path) -> None:
    progress = RecordingProgress()
    assert load_if_valid(tmp_path / "x.json", read_json, progress) is None
    write_json(tmp_path / "x.json", {"a": 1})
    assert load_if_valid(tmp_path / "x.json", read_json, progress) == {"a": 1}
    assert progress.lines == []
    (tmp_path / "x.json").write_text('{"a": 2, "sha256": "0"}')
    assert load_if_valid(tmp_path / "x.json", read_json, progress) is None
    assert not (tmp_path / "x.json").exists()
    assert "x.json is damaged" in progress.lines[0]


def test_a_finished_folder_is_listed_for_sha256sum(tmp_path: Path) -> None:
    """Whatever the names; files that grow, and those that come later, are not listed."""
    with StagedFolder(tmp_path / "out", {}) as stage:
        (stage.path / "a folder").mkdir()
        for name in ("plain", "a folder/ä b", "back\\slash", "line\nbreak", "grows"):
            (stage.path / name).write_text(name)
        stage.commit(mutable=["grows"])
    (tmp_path / "out" / "grows").write_text("later")
    (tmp_path / "out" / "settings.yaml").write_text("later")
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert done.stdout.count("OK") == 5  # run.json is the fifth
    assert not done.stderr
    verify(tmp_path / "out")
    for name, change, words in [
        ("back\\slash", lambda path: path.write_text("x"), r"back\\slash \(other bytes\)"),
        ("line\nbreak", lambda path: path.unlink(), r"line\nbreak \(missing\)"),
        ("plain", lambda path: (path.unlink(), path.symlink_to("settings.yaml")), r"plain \(a link"),
    ]:
        change(tmp_path / "out" / name)
        with pytest.raises(DamagedFile, match=words):
            verify(tmp_path / "out")


def test_sums_that_point_elsewhere_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("x")
    lines = f"{hashlib.sha256(b'x').hexdigest()}  ../secret\n"
    own = f"# sha256 of the lines above: {hashlib.sha256(lines.encode()).hexdigest()}\n"
    (tmp_path / "out" / "SHA256SUMS").write_text(lines + own)
    with pytest.raises(DamagedFile, match="outside the folder"):
        verify(tmp_path / "out")


def test_links_are_not_written_through(tmp_path: Path) -> None:
    """A link below a stage or a claimed folder, a link as the partial folder, as the lock, as the temporary file, and as the output."""
    (tmp_path / "elsewhere").mkdir()
    with lock_workdir(tmp_path / "grow", {}):
        (tmp_path / "grow" / "cells").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="cells is a symbolic link"), lock_workdir(tmp_path / "grow", {}):
        pass
    (tmp_path / "linked.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"linked\.partial is a symbolic link"):
        StagedFolder(tmp_path / "linked", {})
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"(?s)already exists.*symbolic link"):
        StagedFolder(tmp_path / "out", {})
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match=r"\.lock is a symbolic link"), lock_workdir(tmp_path / "locked", {}):
        pass
    (tmp_path / ".x.json.tmp").symlink_to(tmp_path / "victim")
    (tmp_path / "x.json").symlink_to(tmp_path / "victim")
    write_json(tmp_path / "x.json", {"a": 1})
    assert not (tmp_path / "x.json").is_symlink()
    assert not (tmp_path / "victim").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(200):
        (tmp_path / "x").write_bytes(draw.randbytes(draw.randrange(100)))
        for read in (read_json, read_tensors):
            with pytest.raises(DamagedFile):
                read(tmp_path / "x")
