"""Images that are decoded once, and photos that are decoded no larger than they are needed."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from d3hr.data.dataset import load_images
from d3hr.data.decoded import decoded
from tests.conftest import MakeFolder, RecordingProgress

COUNTS = {"ant": 3, "bee": 5, "cat": 2}


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_each_file_is_read_once(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """All pixels are there when the files are gone, in memory and in a file that nobody sees; at another side they would be read again."""
    monkeypatch.setattr("d3hr.data.decoded.IN_MEMORY", in_memory)
    folder = image_folder(COUNTS, size=12)
    (folder / "bee" / "1.png").write_bytes(b"no image")
    images = load_images(folder, image_size=8, on_bad_image="skip")
    expected, ants = images.gather(range(len(images))), images.of_class("ant")
    (tmp_path / "work").mkdir()
    kept = decoded(images, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []
    for file in folder.rglob("*.png"):
        file.unlink()
    found = kept.gather(range(len(images)))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert torch.equal(kept.of_class("ant"), ants)
    assert torch.equal(kept.pixels("bee", [3, 0]), kept.of_class("bee")[[3, 0]])
    assert torch.equal(torch.cat(list(kept.batches("cat", 1))), kept.pick("cat", [0, 1]))
    assert (kept.counts, kept.fingerprint, kept.at_size(8)) == (images.counts, images.fingerprint, kept)
    with pytest.raises(Exception, match="can no longer be read"):
        kept.at_size(4).of_class("ant")


def test_a_disk_that_is_too_full_is_left_alone(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr.data.decoded.IN_MEMORY", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    images, progress = load_images(image_folder(COUNTS)), RecordingProgress()
    assert decoded(images, tmp_path, progress) is images
    assert "1.9 kB, 1.0 kB are free" in progress.lines[0]
