"""Images that are decoded once, and photos that are decoded no larger than they are needed."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from d3hr.data.codec import open_upright, to_pixels
from d3hr.data.decoded import decoded
from d3hr.data.opening import load_images
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


def photo(side: int, orientation: int = 1) -> bytes:
    """A picture of waves of many lengths, as a camera writes it."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(k * (3 * x + 2 * y * (channel + 1))) / k**0.5 for channel in range(3) for k in (2, 9, 40, 170)]
    pixels = np.stack([sum(waves[4 * channel : 4 * channel + 4]) for channel in range(3)], axis=-1)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(np.uint8(127 + 60 * pixels)).resize((side, side * 3 // 4)).save(buffer, "jpeg", quality=92, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_photo_is_decoded_no_larger_than_needed(orientation: int) -> None:
    """Of 1024 x 768 pixels, 32 are wanted: an eighth, 128 x 96, is enough, and hardly differs from the whole; 400 wanted need all."""
    blob = photo(1024, orientation)
    small, whole = open_upright(blob, least=32), open_upright(blob)
    assert sorted(small.size) == [96, 128] and sorted(whole.size) == [768, 1024]
    assert (small.width > small.height) == (whole.width > whole.height)
    difference = to_pixels(small, 32).astype(float) - to_pixels(whole, 32).astype(float)
    assert np.sqrt((difference**2).mean()) < 1.5
    assert open_upright(blob, least=400).size == whole.size
    assert np.array_equal(to_pixels(open_upright(blob, least=400), 400), to_pixels(whole, 400))
