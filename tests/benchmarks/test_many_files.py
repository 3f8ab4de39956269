"""Distillation of many files, killed and resumed, as the benchmark measures it; on few of them."""

import os
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.harness import write_untrained_prior
from benchmarks.speed import many_files
from d3hr import load_images
from d3hr.prior.presets import PRESETS

CLASSES = 3


def make(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_files, "SOURCES", work / "none")
    blobs = many_files.pictures()[:7]
    many_files.make_files(work / "images", 20, CLASSES, 0, blobs)
    many_files.make_links(work / "fewer", work / "images")


def test_every_file_is_different_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, monkeypatch)
    made = {file: file.stat().st_ctime_ns for file in (tmp_path / "images").rglob("*.JPEG")}
    images = load_images(tmp_path / "images")
    assert list(images.counts.values()) == [7, 7, 6]
    assert images.sizes == {(many_files.SIDE, many_files.SIDE): 20}
    assert list(load_images(tmp_path / "fewer").counts.values()) == [2, 2, 2]
    make(tmp_path, monkeypatch)
    assert {file: file.stat().st_ctime_ns for file in (tmp_path / "images").rglob("*.JPEG")} == made
    with Image.open(next(iter(made))) as image:
        image.load()


def test_sets_that_differ_are_told_apart(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(content)
    assert many_files.same_files(tmp_path / "a", tmp_path / "b")
    assert not many_files.same_files(tmp_path / "a", tmp_path / "c")
    (tmp_path / "b" / "y.png").write_bytes(b"")
    assert not many_files.same_files(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_distillation_that_is_killed_twice_makes_the_same_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, monkeypatch)
    names = [many_files.class_name(label) for label in range(CLASSES)]
    write_untrained_prior(tmp_path / "prior", PRESETS["tiny"], many_files.PRIOR_SIDE, names)
    environment = {"D3HR_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    for out, kills in ("killed", (1, 2)), ("whole", ()):
        statistics = tmp_path / f"{out}.partial" / "statistics"
        for count in (*kills, CLASSES + 1):
            arguments = many_files.distillation(tmp_path / "images", tmp_path, tmp_path / out)
            watched = many_files.Watched(arguments, environment, tmp_path / "log.txt")
            killed = watched.until(partial(many_files._has_files, statistics, count))
            assert watched.result()["peak_mib"] > 50
            assert killed == (count in kills)
    assert many_files.same_files(tmp_path / "killed", tmp_path / "whole")
