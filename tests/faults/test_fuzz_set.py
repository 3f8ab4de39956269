"""Distilled sets that were tampered with: they load and agree with themselves, or are refused; no file outside them is opened."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3hr import DistilledSet, Prior, distill, evaluate, load_images
from d3hr.data.dataset import ImageData
from d3hr.errors import D3hrError
from d3hr.evaluation.protocols import protocol_from
from tests.conftest import untrained_prior
from tests.faults.hostile import FILES, GOOD, SCALARS, cases, changed, damaged, encoded, noise
from tests.faults.watching import record_opened_files, within

CLASSES = ("ant", "bee")
SHORT = protocol_from({"name": "short", "steps": 1, "batch_size": 4, "learning_rate": 0.01, "checks": 1})


@dataclass(frozen=True)
class Place:
    """A whole set in ``set``, a file that is nobody's business in ``outside``, and what the set was made of."""

    root: Path
    images: ImageData
    prior: Prior

    @property
    def set(self) -> Path:
        return self.root / "set"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("sets")
    for name in CLASSES:
        (root / "images" / name).mkdir(parents=True)
        for index in range(3):
            (root / "images" / name / f"{index}.png").write_bytes(encoded(noise(8, seed=index + 100 * CLASSES.index(name))))
    images, prior = load_images(root / "images"), untrained_prior(CLASSES)
    distill(images, prior, root / "whole", ipc=2, steps=4, level=1, num_candidates=4)
    (root / "whole" / "SHA256SUMS").unlink()  # whoever means to deceive takes the checksums off
    manifest = json.loads((root / "whole" / "manifest.json").read_text())
    del manifest["sha256"]
    (root / "whole" / "manifest.json").write_text(json.dumps(manifest))
    (root / "outside").mkdir()
    for file in ("00000.png", "00001.png"):
        (root / "outside" / file).write_bytes(GOOD[0])
    return Place(root, images, prior)


@pytest.fixture
def fresh(place: Place) -> Iterator[Place]:
    yield place
    shutil.rmtree(place.set, ignore_errors=True)


def check(place: Place, *, one_in: int = 1, of: bytes = b"") -> bool:
    """The property; return whether the set was taken. One case in ``one_in``, by the bytes that were changed, also puts the set to use."""
    before = sorted(place.root.rglob("*"))
    out = place.root / "out"
    with record_opened_files() as paths:
        try:
            distilled = DistilledSet.load(place.set)
            assert len(distilled.images) == len(distilled.labels) == len(distilled.class_names) * distilled.manifest.ipc
            assert distilled.images.shape[1:] == (3, distilled.manifest.image_size, distilled.manifest.image_size)
            for gaussian in distilled.statistics.values():
                assert gaussian.mean.shape == gaussian.std.shape
                assert gaussian.mean.isfinite().all()
            if zlib.crc32(of) % one_in == 0:
                distilled.expand(place.prior, 1, out)
                evaluate(distilled, place.images, student="convnet1", protocol=SHORT, seeds=[0])
            taken = True
        except D3hrError as error:
            assert error.what
            assert error.found
            assert error.hint
            taken = False
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out.with_name("out.partial"), ignore_errors=True)
    assert within(paths, place.root / "outside") == []
    assert sorted(place.root.rglob("*")) == before
    return taken


def restore(place: Place) -> None:
    shutil.rmtree(place.set, ignore_errors=True)
    shutil.copytree(place.root / "whole", place.set)


def test_the_whole_set_is_taken(fresh: Place) -> None:
    """So that what follows tells something."""
    restore(fresh)
    assert check(fresh)


@cases(350)
@given(st.data())
def test_manifests(place: Place, data: st.DataObject) -> None:
    restore(place)
    whole = json.loads((place.set / "manifest.json").read_text())
    content = json.dumps(data.draw(changed(whole))).encode()
    (place.set / "manifest.json").write_bytes(content)
    check(place, one_in=6, of=content)


@cases(90)
@given(
    st.sampled_from(["name", "label", "folder", "images", "real_images", "conditioning_id", "prior_class"]),
    st.one_of(SCALARS, st.sampled_from(["../../outside", "bee", "..", "ant/../bee", "/tmp"])),
    st.booleans(),
)
def test_entries(place: Place, field: str, value: Any, everywhere: bool) -> None:
    """A field of the classes, and with it what counts the images of all."""
    restore(place)
    content = json.loads((place.set / "manifest.json").read_text())
    for entry in content["classes"] if everywhere else content["classes"][:1]:
        entry[field] = value
    if field == "images" and everywhere:
        content["ipc"] = value
    (place.set / "manifest.json").write_text(json.dumps(content))
    check(place)


@cases(200)
@given(st.data(), st.sampled_from(["manifest.json", "statistics.safetensors", "statistics.safetensors", "train/ant/00001.png", "run.json"]))
def test_bytes(place: Place, data: st.DataObject, file: str) -> None:
    restore(place)
    content = (place.set / file).read_bytes()
    front = content[:600]  # where the headers are
    changed_to = data.draw(st.one_of(damaged(content), damaged(front).map(lambda start: start + content[600:])))
    (place.set / file).write_bytes(changed_to)
    check(place, one_in=8, of=changed_to)


@cases(60)
@given(FILES)
def test_images(place: Place, content: bytes) -> None:
    restore(place)
    (place.set / "train" / "bee" / "00000.png").write_bytes(content)
    check(place)


@cases(150)
@given(st.data())
def test_headers_of_statistics(place: Place, data: st.DataObject) -> None:
    """A header that is JSON of another shape, type or size, terabytes included; the file behind it is as long as a sparse file makes it."""
    restore(place)
    file = place.set / "statistics.safetensors"
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = data.draw(st.sampled_from(["mean", "std", "count"]))
    if data.draw(st.booleans()):
        header[name] = data.draw(changed(header[name]))
    else:
        rows, columns = data.draw(st.sampled_from([(2, 2**36), (10**12, 64), (2, 0), (0, 0), (3, 64), (2, 63)]))
        header[name]["shape"] = [rows, columns]
        end = header[name]["data_offsets"][0] + 4 * rows * columns
        header[name]["data_offsets"][1] = end
    text = json.dumps(header).encode(errors="replace")
    file.write_bytes(struct.pack("<Q", data.draw(st.sampled_from([len(text)] * 4 + [0, 10**15]))) + text + content[8 + length :])
    if data.draw(st.booleans()):
        os.truncate(file, data.draw(st.sampled_from([2**33, 2**40])))
    check(place)


@cases(40)
@given(
    st.sampled_from(["train", "train/ant", "train/ant/00000.png", "manifest.json", "statistics.safetensors", "run.json"]),
    st.sampled_from(["outside", "outside/00000.png", "images/ant/0.png", "whole/manifest.json", "nowhere", "set"]),
    st.booleans(),
)
def test_links(place: Place, which: str, target: str, absolute: bool) -> None:
    """A link to outside is refused where it is met; what it leads to is not opened."""
    restore(place)
    path = place.set / which
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    to = place.root / target
    path.symlink_to(to if absolute else os.path.relpath(to, path.parent))
    assert not check(place) or which == "run.json"
