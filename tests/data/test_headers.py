"""Headers alone: what they say without a picture being decoded, and when they are enough."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3hr import load_images
from d3hr.__main__ import main
from d3hr.data.codec import examine
from d3hr.data.headers import examine_header
from d3hr.data.scan_cache import CACHE_VARIABLE
from d3hr.errors import SettingsError, UnreadableImages
from tests.conftest import MakeFolder
from tests.data.test_formats import WRITERS, encoded


@pytest.fixture
def photos(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, of which one has a duplicate and a picture that is damaged after its header; a cache of its own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("d3hr.data.stamps.RACE_NS", -1)
    root = Path(image_folder({"ant": 3, "bee": 2}))
    (root / "ant" / "again.png").write_bytes(sorted((root / "ant").iterdir())[0].read_bytes())
    return root


def damage(photos: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    (photos / "bee" / "damaged.png").write_bytes(encoded(noise)[:4000])


@pytest.mark.parametrize("kind", WRITERS)
def test_the_header_says_what_the_picture_is(kind: str, tmp_path: Path) -> None:
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif} if kind in ("PNG", "JPEG", "WebP", "TIFF") else {}
        blob = encoded(Image.new("RGB", (8, 6)), WRITERS[kind], **options)
        (tmp_path / "file").write_bytes(blob)
        assert examine_header(blob) == examine_header(tmp_path / "file") == examine(blob)


def test_what_is_no_image_has_no_header(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("<html>")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, why in (("text.png", "web page"), ("empty.png", "no content"), ("none.png", "no content"), ("", "no content")):
        with pytest.raises(ValueError, match=why):
            examine_header(tmp_path / name)


def test_headers_count_and_measure(photos: Path) -> None:
    """Duplicates and damage behind the header are not found, and nothing can be made from such images."""
    expected = load_images(photos, keep_duplicates=True)
    damage(photos)
    images = load_images(photos, verify=False)
    assert images.counts == {"ant": 4, "bee": 3}
    assert images.sizes == {(8, 8): 6, (64, 64): 1}
    assert not images.contents.known
    assert images.fingerprint not in (expected.fingerprint, load_images(photos, on_bad_image="skip").fingerprint)
    assert any("--verify" in note for note in images.notes)
    for made in (lambda: images.record, lambda: images.digests("ant"), lambda: images.overlap(images)):
        with pytest.raises(SettingsError, match="not decoded"):
            made()
    with pytest.raises(UnreadableImages, match="damaged"):
        load_images(photos)


def test_headers_suffice_for_a_second_look_at_headers_only(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_images(photos, verify=False)
    monkeypatch.setattr("d3hr.data.scan.examine_header", lambda _: pytest.fail("a header was read again"))
    again = load_images(photos, verify=False)
    assert (again.fingerprint, again.sizes) == (first.fingerprint, first.sizes)
    full = load_images(photos)
    assert (full.contents.known, len(full.contents.repeats)) == (True, 1)


def test_a_full_look_stays_known(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many images are decoded where an earlier look did that already."""
    full = load_images(photos)
    monkeypatch.setattr("d3hr.data.scan.QUICK", 0)
    again = load_images(photos, verify=None)
    assert (again.contents.known, again.fingerprint) == (True, full.fingerprint)
    (photos / "bee" / "new.png").write_bytes(encoded(Image.new("RGB", (8, 8), "red")))
    assert not load_images(photos, verify=None).contents.known


def test_inspect_says_what_it_has_not_looked_for(photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr.data.scan.QUICK", 5)
    for flags, images, duplicates in ([], 6, None), (["--verify", "true"], 5, 1), ([], 5, 1):
        assert main(["inspect", str(photos), "--json", *flags]) == 0
        output = capsys.readouterr()
        values = json.loads(output.out)
        assert (values["images"], values["duplicates"], values["verified"]) == (images, duplicates, duplicates is not None)
        assert (values["fingerprint"] is None, "--verify" in output.err) == (duplicates is None,) * 2
