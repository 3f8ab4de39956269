"""A disk that fills up, and one that may not be written to: a message, nothing half-written, and the same bytes once there is space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from d3hr.__main__ import main
from d3hr.fileio.atomic import read_json, read_tensors
from tests.conftest import tree
from tests.faults.conftest import Place

pytestmark = pytest.mark.slow

SIZE = 48 * 2**20
BRIEF = str(Path(__file__).parent.parent / "recipes" / "brief.yaml")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, text=True, check=False, timeout=60
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=60)


def fill(disk: Path, left: int) -> Path:
    """Fill a disk up to ``left`` bytes."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    free = os.statvfs(disk)
    ballast.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - left))
    return ballast


def whole(folder: Path) -> None:
    """Make sure that every file that a command wrote below ``folder`` is whole, and none temporary."""
    for path in folder.rglob("*"):
        assert not path.name.endswith(".tmp"), path
        if path.suffix == ".json":
            read_json(path)
        if path.suffix == ".safetensors" and "transformer" not in path.parts and "vae" not in path.parts:  # diffusers' are published whole
            read_tensors(path)


def stops_and_goes_on(disk: Path, arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str], room: list[int]) -> None:
    """Run a command on a disk with ever more room, then with all of it; it needs less each time, since what is finished is kept."""
    stops = 0
    for left in room:
        ballast = fill(disk, left)
        capsys.readouterr()
        if main(arguments) == 0:
            break
        stops += 1
        said = capsys.readouterr().err
        assert "free some space" in said, said
        assert "No space left" in said
        assert "Traceback" not in said
        for folder in disk.iterdir():
            whole(folder)
        ballast.unlink()
    assert stops > 2
    (disk / "ballast").unlink(missing_ok=True)
    assert main(arguments) == 0
    whole(out)


def test_distill(place: Place, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = disk / "set"
    stops_and_goes_on(disk, place.distill(out, steps=6, level=3, candidates=200), out, capsys, [0, 4096, 8192, 20480, 36864, 61440])
    assert main(place.distill(tmp_path / "whole", steps=6, level=3, candidates=200)) == 0
    found, expected = tree(out), tree(tmp_path / "whole")
    del found["settings.yaml"], expected["settings.yaml"]
    assert found == expected


def test_fit(place: Place, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the times in fit.json and its checksum."""
    arguments = ["fit", str(place.folder / "images"), "--steps", "2", "--autoencoder-steps", "2", "--batch-size", "4", "--out"]
    out = disk / "prior"
    stops_and_goes_on(disk, [*arguments, str(out)], out, capsys, [0, 8192, 2 * 2**20, 12 * 2**20, 20 * 2**20])
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    found, expected = tree(out), tree(tmp_path / "whole")
    for timed in ("fit.json", "SHA256SUMS", "settings.yaml"):
        del found[timed], expected[timed]
    assert found == expected


def test_evaluate(place: Place, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place.distill(tmp_path / "set", ipc=2, steps=6, level=3)) == 0
    arguments = ["evaluate", str(tmp_path / "set"), "--test", str(place.folder / "images"), "--protocol", BRIEF, "--student", "convnet1"]
    out = disk / "evaluation"
    stops_and_goes_on(disk, [*arguments, "--seeds", "[0]", "--out", str(out)], out, capsys, [0, 8192, 24576, 53248])
    assert main([*arguments, "--seeds", "[0]", "--out", str(tmp_path / "whole")]) == 0
    found, expected = tree(out), tree(tmp_path / "whole")
    del found["settings.yaml"], expected["settings.yaml"]
    assert found == expected


def test_a_disk_that_may_not_be_written_to(
    place: Place, disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=60)
    for arguments in (place.distill(disk / "set"), ["fit", str(place.folder / "images"), "--out", str(disk / "prior")]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert "choose another --out" in said or "choose an --out" in said
        assert "Traceback" not in said
    assert not list(disk.iterdir())
