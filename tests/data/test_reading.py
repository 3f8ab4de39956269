"""The table of ``docs/reading.md``: folders as people have them, and what becomes of each."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d3hr import load_images
from d3hr.data.splits import split_kinds
from d3hr.errors import DataError


def draw(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    """Write a random picture; another seed gives another picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "png")


def build(root: Path, files: str) -> Path:
    """Write the files named in ``files``: pictures where they end so, folders where they end with a slash, otherwise a few bytes.

    ``a -> b`` is a link, ``a = b`` a copy of the picture b; in names, ``+`` stands for a space.
    """
    root.mkdir(exist_ok=True)
    for seed, entry in enumerate(files.split()):
        name, _, other = entry.replace("+", " ").partition("->" if "->" in entry else "=")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "->" in entry:
            path.symlink_to(other)
        elif "=" in entry:
            path.write_bytes((root / other).read_bytes())
        elif name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif name.lower().endswith((".png", ".jpg")):
            draw(path, seed)
        else:
            path.write_bytes(b"some bytes")
    return root


@dataclass(frozen=True)
class Case:
    """What ``load_images`` makes of the files."""

    files: str
    counts: dict[str, int]
    split: str | None = None
    splits: tuple[str, ...] = ()
    notes: str = ""
    ignored: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
TWO = {"cat": 2, "dog": 1}
READ = {
    "class folders": Case("cat/1.png cat/2.png dog/1.png", TWO),
    "deeper folders": Case("cat/x/1.png cat/y/z/2.png dog/1.png", TWO),
    "upper-case suffixes": Case("cat/1.PNG cat/2.Jpg dog/1.png", TWO),
    "train and test": Case(
        "train/cat/1.png train/cat/2.png train/dog/1.png test/cat/1.png test/dog/1.png", TWO, "train", ("test", "train")
    ),
    "Training and Validation": Case(
        "Training/cat/1.png Training/cat/2.png Training/dog/1.png Validation/cat/1.png Validation/dog/1.png",
        TWO,
        "Training",
        ("Training", "Validation"),
    ),
    "TRAIN and VAL": Case("TRAIN/cat/1.png TRAIN/cat/2.png TRAIN/dog/1.png VAL/cat/1.png VAL/dog/1.png", TWO, "TRAIN", ("TRAIN", "VAL")),
    "train_images and val2017": Case(
        "train_images/cat/1.png train_images/cat/2.png train_images/dog/1.png val2017/cat/1.png val2017/dog/1.png",
        TWO,
        "train_images",
        ("train_images", "val2017"),
    ),
    "pets-train and pets-test": Case(
        "pets-train/cat/1.png pets-train/cat/2.png pets-train/dog/1.png pets-test/cat/1.png pets-test/dog/1.png",
        TWO,
        "pets-train",
        ("pets-test", "pets-train"),
    ),
    "--split validation of val": Case(
        "train/cat/1.png train/dog/1.png val/cat/1.png val/cat/2.png val/dog/1.png",
        TWO,
        "val",
        ("train", "val"),
        options={"split": "validation"},
    ),
    "--split val of Valid": Case(
        "train/cat/1.png train/dog/1.png Valid/cat/1.png Valid/cat/2.png Valid/dog/1.png",
        TWO,
        "Valid",
        ("Valid", "train"),
        options={"split": "val"},
    ),
    "--split test of val and test": Case(
        "val/cat/1.png val/dog/1.png test/cat/1.png test/cat/2.png test/dog/1.png", TWO, "test", ("test", "val"), options={"split": "test"}
    ),
    "--split train of splits that differ": Case(
        "train/cat/1.png train/cat/2.png train/dog/1.png test/cat/1.png", TWO, "train", ("test", "train"), options={"split": "train"}
    ),
    "a test folder without classes": Case(
        "train/cat/1.png train/cat/2.png train/dog/1.png test/1.png", TWO, "train", ("train",), "test/: its images are in no class folders"
    ),
    "another folder next to splits": Case(
        "train/cat/1.png train/cat/2.png train/dog/1.png test/cat/1.png test/dog/1.png more/1.png",
        TWO,
        "train",
        ("test", "train"),
        "more/: no split",
    ),
    "models/ next to splits": Case(
        "train/cat/1.png train/cat/2.png train/dog/1.png test/cat/1.png test/dog/1.png models/last.pt",
        TWO,
        "train",
        ("test", "train"),
        "models/: no images",
    ),
    "train and test in each class": Case(
        "cat/train/1.png cat/train/2.png cat/test/1.png dog/train/1.png dog/test/1.png", TWO, "train", ("test", "train")
    ),
    "--split test of test in each class": Case(
        "cat/Train/1.png cat/Test/1.png cat/Test/2.png dog/Train/1.png dog/Test/1.png",
        TWO,
        "test",
        ("test", "train"),
        options={"split": "testing"},
    ),
    "a class called train": Case("train/1.png bus/1.png bus/2.png", {"bus": 2, "train": 1}),
    "a class called train with folders": Case("train/1.png train/old/2.png bus/1.png", {"bus": 1, "train": 2}),
    "classes called test tube and train station": Case("test+tube/x/1.png train+station/y/1.png", {"test tube": 1, "train station": 1}),
    "a folder called train in one class": Case("cat/train/1.png cat/2.png dog/1.png", TWO),
    "dataset/": Case("dataset/cat/1.png dataset/cat/2.png dataset/dog/1.png", TWO, notes="the classes are in dataset/"),
    "dataset/train/": Case(
        "dataset/train/cat/1.png dataset/train/cat/2.png dataset/train/dog/1.png dataset/test/cat/1.png dataset/test/dog/1.png",
        TWO,
        "train",
        ("test", "train"),
        "the classes are in dataset/",
    ),
    "data/dataset/ next to models/": Case(
        "data/dataset/cat/1.png data/dataset/cat/2.png data/dataset/dog/1.png models/last.pt", TWO, notes="the classes are in data/dataset/"
    ),
    "models/ and annotations/": Case(
        "cat/1.png cat/2.png dog/1.png models/last.pt annotations/all.json", TWO, notes="left out, without images: annotations/"
    ),
    "litter": Case(
        "cat/1.png cat/2.png dog/1.png cat/._1.png cat/.ipynb_checkpoints/1.png __MACOSX/cat/._1.png .DS_Store dog/Thumbs.db .cache/x.png",
        TWO,
        ignored=(".DS_Store", ".cache/", "__MACOSX/", "cat/._1.png", "cat/.ipynb_checkpoints/", "dog/Thumbs.db"),
    ),
    "loose images and other files": Case(
        "cat/1.png cat/2.png dog/1.png preview.png dog/notes.txt", TWO, ignored=("dog/notes.txt", "preview.png")
    ),
    "links": Case("real/1.png data/cat->../real data/dog/1.png data/dog/2.png", {"cat": 1, "dog": 2}, options={"below": "data"}),
    "é in both Unicode forms, in different classes": Case(f"{COMPOSED}/1.png {DECOMPOSED}s/1.png", {COMPOSED: 1, f"{COMPOSED}s": 1}),
    "--keep-similar-names": Case("Dog/1.png dog/1.png dog/2.png", {"Dog": 1, "dog": 2}, options={"keep_similar_names": True}),
    "a picture twice in a class": Case(
        "cat/1.png cat/2.png cat/3.png=cat/1.png dog/1.png", TWO, notes="1 exact duplicate(s) within a class"
    ),
    "--keep-duplicates": Case(
        "cat/1.png cat/2.png=cat/1.png dog/1.png", TWO, notes="cat/2.png, counted each time", options={"keep_duplicates": True}
    ),
    "a picture in two classes": Case(
        "cat/1.png cat/2.png dog/1.png=cat/1.png", TWO, notes="1 picture(s) in several classes, such as cat/1.png and dog/1.png"
    ),
    "a class of one image": Case("cat/1.png cat/2.png dog/1.png", TWO),
    "numbers": Case("10/1.png 9/1.png 2/1.png", {"2": 1, "9": 1, "10": 1}),
    "numbers and words": Case("10/1.png 9/1.png b/1.png", {"10": 1, "9": 1, "b": 1}),
}
REFUSED = {
    "val and test without train": ("val/cat/1.png val/dog/1.png test/cat/1.png test/dog/1.png", "none to train on", "splits: test, val"),
    "val and test in each class": ("cat/val/1.png cat/test/1.png dog/val/1.png dog/test/1.png", "none to train on", "splits: test, val"),
    "splits that differ": ("train/cat/1.png train/dog/1.png test/cat/1.png", "splits or classes", r"test \(cat\), train \(cat, dog\)"),
    "splits without classes": ("Train/1.png Train/2.png Test/1.png", "splits or classes", r"Test \(1 images\), Train \(2 images\)"),
    "one split next to another folder": ("train/cat/1.png train/dog/1.png more/1.png", "splits or classes", r"train \(cat, dog\), more"),
    "splits in one class": ("cat/train/1.png cat/test/1.png dog/1.png", "splits or classes", r"cat \(test, train\)"),
    "train and training": ("train/a/1.png train/b/1.png training/a/1.png training/b/1.png", "not clear", "train, training"),
    "a link that leads nowhere": ("cat/1.png dog/1.png bee->/nowhere/bee", "lead nowhere", "bee -> /nowhere/bee"),
    "an empty class": ("cat/1.png dog/1.png bee/", "Class 'bee'", "0 file"),
    "Dog and dog": ("Dog/1.png dog/1.png cat/1.png", "hard to tell apart", "'Dog' and 'dog'"),
    "a space at the end": ("dog/1.png dog+/1.png cat/1.png", "hard to tell apart", "'dog' and 'dog '"),
    "é in both Unicode forms": (f"{COMPOSED}/1.png {DECOMPOSED}/1.png", "hard to tell apart", r"'cafe\\u0301' and 'caf\\xe9'"),
    "no images": ("models/last.pt code/main.py", "no class folders", r"2 folder\(s\) without images"),
    "an empty class next to a deep one": ("cat/x/1.png cat/y/1.png bee/", "Class 'bee'", "0 file"),
    "a class of another kind of file": ("cat/1.png dog/1.png bee/1.psd", "Class 'bee'", "1 layered pictures of an editor"),
    "one class": ("cat/1.png cat/2.png", "fewer than two classes", "classes: cat"),
    "images alone": ("1.png 2.png", "no class folders", r"2 image\(s\) directly in it"),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read(tmp_path: Path, name: str) -> None:
    case = READ[name]
    options = {**case.options}
    root = build(tmp_path / "images", case.files) / options.pop("below", "")
    images = load_images(root, **options)
    assert images.counts == case.counts
    assert list(images.counts) == list(case.counts)
    assert images.split == case.split
    assert images.splits == case.splits
    assert images.ignored == case.ignored
    assert case.notes in "\n".join(images.notes)
    assert bool(images.notes) == bool(case.notes)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    files, what, found = REFUSED[name]
    with pytest.raises(DataError) as caught:
        load_images(build(tmp_path / "images", files))
    assert re.search(what, caught.value.what)
    assert re.search(found, caught.value.found)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "what", "found", "hint"),
    [
        ("s3://bucket/photos", "is an address", "a place that s3 leads to", "download it"),
        ("https://example.org/photos.zip", "is an address", "https", "download it"),
        ("https://huggingface.co/datasets/owner/name/tree/main", "is an address", "https", "by its id, owner/name"),
        ("hf://datasets/owner/name", "is an address", "hf", "by its id, owner/name"),
        ("images/*", "is a pattern", "stand for others", "give the folder"),
        ("images/[ab]?", "is a pattern", "stand for others", "give the folder"),
        ("~/nothing-is-here", "There is no folder ~/nothing-is-here", "nothing at /.*[^~]/nothing-is-here", "check the path"),
    ],
)
def test_what_is_no_path_is_answered_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str, found: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "images", "cat/1.png dog/1.png")
    with pytest.raises(DataError) as caught:
        load_images(name)
    assert re.search(what, caught.value.what)
    assert re.search(found, caught.value.found)
    assert hint in caught.value.hint


def test_the_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    build(tmp_path / "images", "cat/1.png cat/2.png dog/1.png")
    images = load_images("~/images")
    assert images.counts == TWO
    assert images.source == "~/images"


def test_a_hub_that_cannot_be_reached_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing listens on port 9: the client would ask six times in half a minute."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(tmp_path)
    start = monotonic()
    with pytest.raises(DataError, match="the Hugging Face Hub cannot be reached") as caught:
        load_images("owner/name")
    assert monotonic() - start < 10
    assert re.match(r"no copy of it on this machine; Connect(ion)?Error: .*refused", caught.value.found)
    assert "Retrying" not in caplog.text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="the Hugging Face Hub cannot be reached") as caught:
        load_images("owner/name")
    assert re.search("offline mode is enabled|refused", caught.value.found)


def test_the_right_split_is_read(tmp_path: Path) -> None:
    """Not one picture of the other split, in either layout."""
    around = build(tmp_path / "around", "Train/cat/1.png Train/dog/1.png Test/cat/1.png Test/dog/1.png")
    below = build(tmp_path / "below", "cat/train/1.png dog/train/1.png cat/test/1.png dog/test/1.png")
    assert load_images(around).fingerprint == load_images(below).fingerprint
    assert load_images(around, split="test").fingerprint == load_images(below, split="test").fingerprint
    assert load_images(around, split="test").fingerprint != load_images(around).fingerprint


def test_names_of_splits() -> None:
    assert split_kinds(["Train", "VALID", "testing", "trainset", "img_val", "ILSVRC2012 dev"]) == {
        "Train": "train",
        "VALID": "validation",
        "testing": "test",
        "trainset": "train",
        "img_val": "validation",
    }
    assert split_kinds(["testament", "valley", "trainer", "train_test", "test tube", "contest"]) == {}
    assert split_kinds(["birds train", "birds test", "test tube"]) == {"birds train": "train", "birds test": "test"}


def test_every_case_is_in_the_docs() -> None:
    """And no row of the page is without a case."""
    from tests.data import test_containers as containers
    from tests.data import test_in_memory as in_memory

    page = (Path(__file__).parents[2] / "docs" / "reading.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE)
    cases = [
        *READ,
        *REFUSED,
        *containers.READ,
        *containers.NAMED,
        *containers.ARRAYS,
        *containers.REFUSED,
        *in_memory.READ,
        *in_memory.REFUSED,
    ]
    assert sorted(row for row in rows if row != "Input") == sorted(cases)
