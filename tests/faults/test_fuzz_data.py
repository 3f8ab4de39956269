"""Folders of images as nobody should give them: they are read, or refused in three parts; nothing else happens."""

import os
import shutil
from pathlib import Path

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3hr import load_images
from d3hr.data.codec import open_upright, to_pixels
from d3hr.errors import D3hrError
from tests.conftest import tree
from tests.data.test_containers import ARRAYS, READ
from tests.faults.hostile import FILES, GOOD, NAMES, VALUES, cases

SUFFIXES = st.sampled_from([".png", ".png", ".jpg", ".webp", ".PNG", ".txt", "", ".png.png"])
LINKS = ["..", ".", "../../outside", "/dev/zero", "/dev/null", "nowhere", "loop"]


@st.composite
def folders(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """What lies in a folder: (kind, class, folder below it, file name, ...)."""
    entries: list[tuple[str, ...]] = []
    for name in draw(st.lists(NAMES, min_size=0, max_size=4)):
        below = draw(st.sampled_from(["", "", "deeper", "train/x"]))
        for _ in range(draw(st.integers(0, 3))):
            kind = draw(st.sampled_from(["file"] * 8 + ["link", "pipe", "folder"]))
            content = draw(FILES) if kind == "file" else draw(st.sampled_from(LINKS)).encode()
            entries.append((kind, name, below, draw(NAMES)[:40] + draw(SUFFIXES), content.hex()))
    return entries


def make(root: Path, entries: list[tuple[str, ...]]) -> None:
    for kind, name, below, file, content in entries:
        try:
            place = root / name / below / file
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                continue  # a pipe would take what is written only while somebody reads
            if kind == "file":
                place.write_bytes(bytes.fromhex(content))
            elif kind == "link":
                place.symlink_to(bytes.fromhex(content).decode())
            elif kind == "pipe":
                os.mkfifo(place)
            else:
                place.mkdir()
        except (OSError, ValueError):
            continue  # no name for this disk


def read_or_refused(source: Path | str, **options: object) -> None:
    """The property: an ImageData whose counts match and whose values are finite in [-1, 1], or an error in three parts."""
    try:
        images = load_images(source, **options)  # type: ignore[arg-type]
    except D3hrError as error:
        assert error.what
        assert error.found
        assert error.hint
        return
    seen = {name: torch.cat(list(batches)) for name, batches in images}
    assert {name: len(batch) for name, batch in seen.items()} == images.counts
    assert sum(images.counts.values()) == len(images) == sum(images.sizes.values())
    for batch in seen.values():
        assert batch.shape[1:] == (3, images.image_size, images.image_size)
        assert batch.isfinite().all()
        assert batch.abs().max() <= 1


@cases(450)
@given(folders(), st.sampled_from(["error", "skip", "skip"]), st.sampled_from([None, None, "train", "test"]), st.sampled_from([None, 4, 8]))
def test_folders(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, ...]], bad: str, split: str | None, size: int | None
) -> None:
    place = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.rmtree(place, ignore_errors=True)
    (place / "outside").mkdir(parents=True)
    (place / "outside" / "canary.png").write_bytes(GOOD[0])
    make(place / "images", entries)
    (place / "images").mkdir(exist_ok=True)
    before = sorted(os.fsencode(path) for path in place.rglob("*"))
    read_or_refused(place / "images", on_bad_image=bad, split=split, image_size=size)
    assert sorted(os.fsencode(path) for path in place.rglob("*")) == before


@cases(600)
@given(FILES)
def test_files(content: bytes) -> None:
    """A file is pixels of the size asked for, or a ValueError of one line."""
    try:
        image = open_upright(content)
    except ValueError as error:
        assert str(error)
    else:
        assert to_pixels(image, 4).shape == (4, 4, 3)


@cases(30)
@given(
    st.lists(st.one_of(st.sampled_from(GOOD), FILES), min_size=0, max_size=4),
    st.sampled_from(["bytes", "path", "text", "none"]),
    st.lists(st.one_of(st.none(), st.integers(-2, 3), st.sampled_from(["a", "b", "é", ""])), min_size=4, max_size=4),
    st.sampled_from([None, "label", "image", "other", ""]),
)
def test_tables(tmp_path_factory: pytest.TempPathFactory, blobs: list[bytes], kind: str, labels: list[object], column: str | None) -> None:
    root = tmp_path_factory.mktemp("table")
    secret = root / "secret.png"
    secret.write_bytes(GOOD[0])
    cells = {"bytes": lambda b: {"bytes": b, "path": None}, "path": lambda _: {"bytes": None, "path": str(secret)}}
    values = [cells[kind](blob) if kind in cells else (str(secret) if kind == "text" else None) for blob in blobs]
    text = any(isinstance(label, str) for label in labels)
    shown = [None if label is None else str(label) if text else label for label in labels][: len(values)]
    (root / "table").mkdir()
    datasets.Dataset.from_dict({"image": values, "label": shown}).to_parquet(root / "table" / "train.parquet")
    before = tree(root)
    read_or_refused(root / "table", image_column="image", label_column=column, on_bad_image="skip")
    assert tree(root) == before


DAMAGED = ["a zip", "a tar", "a tar.gz", "labels.csv next to images/", "metadata.jsonl", "one WebDataset shard", "an .npz of MedMNIST"]


@cases(90)
@given(st.sampled_from(DAMAGED), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 20)), min_size=1, max_size=6))
def test_containers(tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[float, bytes, int]]) -> None:
    """Bytes replaced, inserted and lost anywhere in the file."""
    source = {**READ, **ARRAYS}[name](tmp_path_factory.mktemp("damaged"))
    file = next(source.glob("*.*sv")) if source.is_dir() and "csv" in name else next(source.glob("*.jsonl")) if source.is_dir() else source
    content = file.read_bytes()
    for place, instead, lost in edits:
        at = int(place * len(content))
        content = content[:at] + instead + content[at + lost :]
    file.write_bytes(content)
    read_or_refused(source, on_bad_image="skip")


@cases(120)
@given(st.one_of(NAMES, st.text(max_size=30), VALUES.map(str), st.sampled_from(["a\0b", "x" * 5000, "/proc/1/mem", "/dev/zero", "", "."])))
def test_names_of_sources(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    empty = tmp_path_factory.getbasetemp() / "empty"
    empty.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(empty)
        if "/" in name and name.count("/") == 1 and not name.startswith(("/", ".")):
            return  # a Hub id
        read_or_refused(name, split=None)
