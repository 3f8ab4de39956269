"""Duplicates, contradictions and overlaps, planted one by one; pictures that are not square."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d3hr import load_images
from d3hr.__main__ import main
from d3hr.data.codec import to_pixels
from d3hr.data.contents import Contents
from d3hr.errors import SettingsError
from tests.data.test_reading import build, draw

PLANTED = "cat/1.png cat/2.png cat/3.png=cat/1.png cat/x/4.png=cat/1.png dog/1.png dog/2.png=cat/2.png dog/3.png emu/1.png"


def test_duplicates_are_counted_once(tmp_path: Path) -> None:
    """Two copies of one picture in its class are left out, a copy in another class stays: nobody knows which label is wrong."""
    images = load_images(build(tmp_path / "images", PLANTED))
    assert images.counts == {"cat": 2, "dog": 3, "emu": 1}
    assert (len(images.contents.repeats), len(images.contents.contradictions)) == (2, 1)
    assert images.sizes == {(8, 8): 6}
    said = "\n".join(images.notes)
    assert "2 exact duplicate(s) within a class, such as cat/3.png" in said
    assert "1 picture(s) in several classes, such as cat/2.png and dog/2.png" in said
    record = images.record
    assert (record.images, record.duplicates, record.conflicting_duplicates, record.keep_duplicates) == (6, 2, 1, False)
    kept = load_images(tmp_path / "images", keep_duplicates=True)
    assert kept.counts == {"cat": 4, "dog": 3, "emu": 1}
    assert kept.record.keep_duplicates
    assert kept.fingerprint != images.fingerprint


def test_data_without_duplicates_keep_their_fingerprint(tmp_path: Path) -> None:
    """That of class names, labels and contents alone, which sets and results of earlier versions name."""
    images = load_images(build(tmp_path / "images", "cat/1.png dog/1.png"))
    assert images.fingerprint == load_images(tmp_path / "images", keep_duplicates=True).fingerprint
    assert load_images("digits").fingerprint[:12] == "ae78e43b1c80"


def test_overlap_counts_test_images_that_were_trained_on(tmp_path: Path) -> None:
    train = load_images(build(tmp_path / "train", "cat/1.png cat/2.png dog/1.png"))
    for name, copied in (("cat/a.png", "cat/1.png"), ("cat/b.png", "cat/1.png"), ("dog/a.png", "dog/1.png")):
        (tmp_path / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / name).write_bytes((tmp_path / "train" / copied).read_bytes())
    build(tmp_path / "test", "x y z emu.txt dog/b.png")
    test = load_images(tmp_path / "test", keep_duplicates=True)
    assert len(test) == 4
    assert train.overlap(test) == 3
    assert train.overlap(train) == 3


def test_inspect_says_what_is_there_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A duplicate within a class, one across classes, and one in the test images: exact counts."""
    monkeypatch.chdir(tmp_path)
    files = PLANTED.split()
    build(tmp_path / "data", " ".join(f"train/{'=train/'.join(file.split('='))}" for file in files))
    build(tmp_path / "data", "a b c d e f g h i test/cat/1.png=train/cat/1.png test/dog/1.png test/emu/1.png test/emu/2.png=test/emu/1.png")
    assert main(["inspect", "data", "--test", "data", "--test-split", "test", "--json"]) == 0
    output = capsys.readouterr()
    values = json.loads(output.out)
    assert {name: values[name] for name in ("images", "duplicates", "conflicting_duplicates", "overlap")} == {
        "images": 6,
        "duplicates": 2,
        "conflicting_duplicates": 1,
        "overlap": 1,
    }
    assert "warning: 1 of 4 test images are training images too" in output.err
    assert main(["inspect", "data", "--keep-duplicates", "true", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 8
    assert main(["inspect", "data", "--test-split", "test"]) == 2


def striped(size: tuple[int, int]) -> Image.Image:
    """A picture whose middle third along x is red, on blue."""
    image = Image.new("RGB", size, (0, 0, 255))
    image.paste((255, 0, 0), (size[0] // 3, 0, 2 * size[0] // 3, size[1]))
    return image


def test_pictures_that_are_not_square_are_cropped_padded_or_stretched() -> None:
    """24 x 8 at 8 px: the middle third; all of it in 8 x 3 or so between black bars; all of it in 8 x 8."""
    image = striped((24, 8))
    crop, pad, stretch = (to_pixels(image, 8, fit) for fit in ("crop", "pad", "stretch"))
    assert (crop == (255, 0, 0)).all()
    assert (pad[:2] == 0).all() and (pad[-2:] == 0).all()
    for whole in (pad[4], stretch[0], stretch[7]):
        assert whole[0, 2] > 200 and whole[7, 2] > 200
        assert whole[4, 0] > 200
    assert all((to_pixels(striped((9, 9)), 9, fit) == np.array(striped((9, 9)))).all() for fit in ("crop", "pad", "stretch"))


def test_the_fit_is_said_kept_and_part_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """24 x 8 and 8 x 8: the crop drops 2/3 of one and nothing of the other, 1/3 on average."""
    for name, size in (("a", (24, 8)), ("b", (8, 8))):
        (tmp_path / name).mkdir()
        striped(size).save(tmp_path / name / "x.png")
    cropped, padded = load_images(tmp_path), load_images(tmp_path, fit="pad")
    assert cropped.cropped == pytest.approx(1 / 3)
    assert padded.cropped == 0
    assert not torch.equal(cropped[0][0], padded[0][0])
    assert cropped.fingerprint != padded.fingerprint
    assert (cropped.record.fit, padded.record.fit) == ("crop", "pad")
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    output = capsys.readouterr()
    assert "drops 33.3 % of a picture" in output.err
    assert json.loads(output.out)["cropped"] == pytest.approx(1 / 3, abs=1e-4)
    assert main(["inspect", str(tmp_path), "--fit", "stretch"]) == 0
    assert "drops" not in capsys.readouterr().err
    with pytest.raises(SettingsError, match="--fit"):
        load_images(tmp_path, fit="squeeze")  # type: ignore[arg-type]


@pytest.mark.slow
def test_real_images_are_fitted_like_those_of_the_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set of padded and repeated images: evaluate reads them again padded and repeated, and the test images padded."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a/1.png", "a/2.png", "b/1.png", "b/2.png")):
        draw(tmp_path / "images" / name, seed, (24, 8))
    build(tmp_path / "images", "a/3.png=a/1.png")
    assert main(["baseline", "random_real", "images", "--out", "set", "--ipc", "1", "--fit", "pad", "--keep-duplicates", "true"]) == 0
    capsys.readouterr()
    (tmp_path / "brief.yaml").write_text("base: quick\nsteps: 2\n")
    assert main(["evaluate", "set", "--test", "images", "--protocol", "brief.yaml", "--seeds", "[0]"]) == 0
    said = capsys.readouterr().err
    assert "is not what the set was made from" not in said
    assert "drops" not in said
    assert "the test images are the training images" in said


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=12))
def test_the_same_pictures_are_found_in_any_order(images: list[tuple[int, int]]) -> None:
    digests, labels = np.array(images, dtype=np.int64).reshape(-1, 2).T
    order = np.argsort(labels, kind="stable")
    found = Contents.of(digests, labels, order)
    seen = [(digests[index], labels[index]) for index in order]
    assert found.repeats.tolist() == [int(order[place]) for place in range(len(order)) if seen[place] in seen[:place]]
    pictures = {picture: [int(index) for index in order if digests[index] == picture] for picture in dict.fromkeys(digests[order].tolist())}
    assert found.contradictions == tuple(tuple(group) for group in pictures.values() if len({labels[index] for index in group}) > 1)
