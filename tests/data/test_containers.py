"""Labels in tables and names, and data sets in files: each input is built, and gives the same images as class folders, or is refused."""

import csv
import gzip
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from d3hr import load_images
from d3hr.data.members import open_archive
from d3hr.errors import D3hrError, DataError, SettingsError
from tests.data.test_reading import draw

COUNTS = {"cat": 2, "dog": 1}
FILES = {"1.png": "cat", "2.png": "cat", "3.png": "dog"}


def class_folders(root: Path, split: str = "") -> Path:
    """The images that every container holds: two cats, and a dog."""
    for number, (name, label) in enumerate(FILES.items()):
        draw(root / split / label / name, number)
    return root


def loose(folder: Path) -> Path:
    for number, name in enumerate(FILES):
        draw(folder / name, number)
    return folder


def write_csv(file: Path, header: list[str], rows: list[list[Any]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream, delimiter=delimiter).writerows([header, *rows])


def in_csv(name: str, columns: list[str], *, images: str = "", **options: Any) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        loose(root / images)
        write_csv(root / name, columns, [[file, label] for file, label in FILES.items()], **options)
        return root

    return build


def in_jsonl(root: Path) -> Path:
    loose(root)
    lines = [json.dumps({"file_name": file, "label": label, "caption": None}) for file, label in FILES.items()]
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return root


def with_split_column(root: Path) -> Path:
    loose(root / "images")
    draw(root / "images" / "4.png", 4)
    rows = [*([file, label, "train"] for file, label in FILES.items()), ["4.png", "dog", "test"]]
    write_csv(root / "labels.csv", ["image", "class", "split"], rows)
    return root


def with_table_per_split(root: Path) -> Path:
    loose(root / "train")
    write_csv(root / "train" / "metadata.csv", ["file_name", "label"], [[*item] for item in FILES.items()])
    draw(root / "test" / "4.png", 4)
    write_csv(root / "test" / "metadata.csv", ["file_name", "label"], [["4.png", "dog"]])
    return root


def without_header(root: Path) -> Path:
    write_csv(loose(root) / "labels.csv", ["1.png", "cat"], [["2.png", "cat"], ["3.png", "dog"]])
    return root


def without_suffixes(root: Path) -> Path:
    loose(root / "pictures")
    write_csv(root / "labels.csv", ["id", "category"], [[file.removesuffix(".png"), label] for file, label in FILES.items()])
    return root


def table_next_to_class_folders(root: Path) -> Path:
    class_folders(root)
    write_csv(root / "labels.csv", ["file", "label"], [["cat/1.png", "wolf"]])
    return root


def the_table_itself(root: Path) -> Path:
    in_csv("mine.csv", ["file", "label"], images="pictures")(root)
    return root / "mine.csv"


def named_by_label(root: Path) -> Path:
    for number, (name, label) in enumerate(FILES.items()):
        draw(root / "all" / f"{label}_{name}", number)
    return root


def zipped(root: Path) -> Path:
    """As Windows and macOS make them: a folder in it, with what the system leaves."""
    class_folders(root / "pets")
    with zipfile.ZipFile(root / "pets.zip", "w") as archive:
        for file in sorted((root / "pets").rglob("*.png")):
            archive.write(file, file.relative_to(root))
        archive.writestr("__MACOSX/pets/cat/._1.png", b"litter")
    return root / "pets.zip"


def tarred(mode: str, suffix: str, layout: Callable[[Path], object] = class_folders) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        layout(root / "pets")
        with tarfile.open(root / f"pets{suffix}", mode) as archive:  # type: ignore[call-overload]
            archive.add(root / "pets", "./pets")
        return root / f"pets{suffix}"

    return build


def splits(root: Path) -> None:
    class_folders(root, "Train")
    draw(root / "Test" / "cat" / "1.png", 7)
    draw(root / "Test" / "dog" / "1.png", 8)


def pixels() -> NDArray[np.uint8]:
    """The images of the class folders, [3, 8, 8, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        return np.stack([np.array(Image.open(file)) for file in sorted(loose(Path(folder)).iterdir())])


def in_npz(*, channels_first: bool = False, **arrays: Any) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        images = pixels().transpose(0, 3, 1, 2) if channels_first else pixels()
        given: dict[str, Any] = {name: images if value is None else np.array(value) for name, value in arrays.items()}
        np.savez(root / "x.npz", **given)
        return root / "x.npz"

    return build


def write_idx(file: Path, array: NDArray[np.uint8]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", side) for side in array.shape) + array.tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def in_idx(folder: str, suffix: str, *, given: str = "") -> Callable[[Path], Path]:
    """The files of MNIST; its images are grey."""

    def build(root: Path) -> Path:
        for name, images, labels in (("train", pixels()[..., 0], [3, 3, 7]), ("t10k", pixels()[:1, ..., 0], [3])):
            write_idx(root / folder / f"{name}-images-idx3-ubyte{suffix}", images)
            write_idx(root / folder / f"{name}-labels-idx1-ubyte{suffix}", np.array(labels, dtype=np.uint8))
        return root / given

    return build


def pixels_of_cifar() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)


def cifar_10(root: Path) -> Path:
    """Its Python version, of three images in two batches."""
    flat = pixels_of_cifar().reshape(3, -1)
    for name, batch in (("data_batch_1", slice(0, 2)), ("data_batch_2", slice(2, 3)), ("test_batch", slice(0, 3))):
        (root / name).write_bytes(pickle.dumps({b"data": flat[batch], b"labels": [0, 0, 1][batch]}, protocol=2))
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}, protocol=2))
    return root


def cifar_100(root: Path) -> Path:
    for name in ("train", "test"):
        labels = {b"fine_labels": [0, 0, 1]}
        (root / name).write_bytes(pickle.dumps({b"data": pixels_of_cifar().reshape(3, -1), **labels}, protocol=2))
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"cat", b"dog"]}, protocol=2))
    return root


def in_parquet(kind: str, *, name: str = "x.parquet", given: str = "x.parquet") -> Callable[[Path], Path]:
    """A table of the images as bytes, as a struct of bytes and path, or as paths relative to the table; labels are numbers."""

    def build(root: Path) -> Path:
        loose(root / "images")
        blobs = [(root / "images" / file).read_bytes() for file in FILES]
        cells: dict[str, list[Any]] = {
            "bytes": blobs,
            "struct": [{"bytes": blob, "path": None} for blob in blobs],
            "path": [f"images/{file}" for file in FILES],
        }
        column = "path" if kind == "path" else "picture"
        pq.write_table(pa.table({column: cells[kind], "label": [0, 0, 1]}), root / name)
        return root / given

    return build


def saved(*, splits: bool) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        images = [{"bytes": (loose(root / "images") / file).read_bytes(), "path": None} for file in FILES]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        table = datasets.Dataset.from_dict({"image": images, "label": [0, 0, 1]}, features=features)
        (datasets.DatasetDict({"train": table, "test": table.select([0])}) if splits else table).save_to_disk(root / "saved")
        return root / "saved"

    return build


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def in_shards(ending: str, label: Callable[[str], str], *, given: str = "shards") -> Callable[[Path], Path]:
    """Two shards of train, one of test; the last file of an example may be a caption."""

    def build(root: Path) -> Path:
        loose(root / "images")
        made(root / "shards")
        for number, files in enumerate((["1.png", "2.png"], ["3.png"])):
            members: dict[str, bytes] = {}
            for file in files:
                key = file.removesuffix(".png")
                members[f"{key}.png"] = (root / "images" / file).read_bytes()
                members[f"{key}.{ending}"] = label(FILES[file]).encode()
                members[f"{key}.txt"] = b"a caption"
            shard(root / "shards" / f"pets-train-{number:06}.tar", members)
        shard(root / "shards" / "pets-test-000000.tar", {"9.png": (root / "images" / "1.png").read_bytes(), f"9.{ending}": b"cat"})
        return root / given

    return build


def one_shard(root: Path) -> Path:
    members = {file: (loose(root / "images") / file).read_bytes() for file in FILES}
    return shard(root / "x.tar", members | {file.replace("png", "cls"): label.encode() for file, label in FILES.items()})


def unlabelled_shard(root: Path) -> Path:
    blob = draw_one(root).read_bytes()
    members = {f"{number}.png": blob for number in range(7)} | {f"{number}.cls": b"cat" for number in range(6)}
    return shard(root / "x.tar", members)


READ: dict[str, Callable[[Path], Path]] = {
    "metadata.csv": in_csv("metadata.csv", ["file_name", "label"]),
    "metadata.jsonl": in_jsonl,
    "labels.csv next to images/": in_csv("labels.csv", ["filename", "class"], images="images"),
    "labels.csv with semicolons, from a spreadsheet": in_csv("labels.csv", ["Image", "Label"], delimiter=";", encoding="utf-8-sig"),
    "labels.tsv": in_csv("labels.tsv", ["path", "category"], delimiter="\t"),
    "labels.csv without a header": without_header,
    "labels.csv of names without suffixes": without_suffixes,
    "a table with a column split": with_split_column,
    "metadata.csv in train/ and test/": with_table_per_split,
    "a table in a lone folder": lambda root: in_csv("labels.csv", ["file", "label"])(root / "dataset").parent,
    "a table of any name, given itself": the_table_itself,
    "labels.csv next to class folders": table_next_to_class_folders,
    "labels in the names of files": named_by_label,
    "a zip": zipped,
    "a tar": tarred("w", ".tar"),
    "a tar.gz": tarred("w:gz", ".tgz"),
    "a tar.xz with splits": tarred("w:xz", ".tar.xz", splits),
    "WebDataset shards with .cls": in_shards("cls", str),
    "WebDataset shards with .json": in_shards("json", lambda label: json.dumps({"label": label})),
    "one WebDataset shard": one_shard,
    "a folder of save_to_disk": saved(splits=False),
    "a folder of save_to_disk with splits": saved(splits=True),
    "a tar with a table of labels": tarred("w", ".tar", in_csv("labels.csv", ["file", "label"], images="images")),
}
NAMED: dict[str, Callable[[Path], Path]] = {
    "one parquet file of bytes": in_parquet("bytes"),
    "one parquet file of structs": in_parquet("struct"),
    "one parquet file of relative paths": in_parquet("path"),
    "a folder of parquet files of relative paths": in_parquet("path", given=""),
}
"""Tables whose labels are numbers, which get their names from a file."""
ARRAYS: dict[str, Callable[[Path], Path]] = {
    "an .npz of images and labels": in_npz(images=None, labels=["cat", "cat", "dog"]),
    "an .npz of MedMNIST": in_npz(train_images=None, train_labels=[[0], [0], [1]], test_images=None, test_labels=[[0], [0], [1]]),
    "an .npz of Keras": in_npz(x_train=None, y_train=[0, 0, 1], x_test=None, y_test=[0, 0, 1]),
    "an .npz with one-hot labels, channels first": in_npz(channels_first=True, X=None, y=[[1, 0], [1, 0], [0, 1]]),
    "an .npz with class_names": in_npz(images=None, labels=[0, 0, 1], class_names=[b"cat", b"dog"]),
    "MNIST's idx files": in_idx("", ""),
    "MNIST's idx.gz files, as torchvision puts them": in_idx("MNIST/raw", ".gz"),
    "one idx file of images": in_idx("", "", given="train-images-idx3-ubyte"),
}
OPTIONS: dict[str, dict[str, Any]] = {"labels in the names of files": {"label_pattern": r"(?P<label>[a-z]+)_\d"}}


@pytest.mark.parametrize("name", READ)
def test_every_container_gives_the_same_images(tmp_path: Path, name: str) -> None:
    """The same bytes in the same order as in class folders, so the same fingerprint."""
    (tmp_path / "given").mkdir()
    given = load_images(READ[name](tmp_path / "given"), **OPTIONS.get(name, {}))
    plain = load_images(class_folders(tmp_path / "plain"))
    assert given.counts == COUNTS
    assert given.fingerprint == plain.fingerprint
    assert given.of_class("cat").equal(plain.of_class("cat"))


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("names", ["x.yaml", "x.json", "x.txt"])
def test_numbers_get_their_names_from_a_file(tmp_path: Path, name: str, names: str) -> None:
    """And give the same images as class folders of these names."""
    file = tmp_path / names
    file.write_text({"x.yaml": "0: cat\n1: dog\n", "x.json": '["cat", "dog"]', "x.txt": "cat\ndog\n"}[names])
    source = NAMED[name](made(tmp_path / "given"))
    assert load_images(source).class_names == ("0", "1")
    given = load_images(source, class_names=file)
    assert given.fingerprint == load_images(class_folders(tmp_path / "plain")).fingerprint
    assert given.counts == COUNTS


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("x.yaml", "cat: wolf\n", DataError, "no name for dog"),
        ("x.yaml", "cat: pet\ndog: pet\n", DataError, "several classes called pet"),
        ("x.json", '{"cat": ["n1", "wolf"], "dog": "x"}', SettingsError, "entries that are no names"),
        ("x.yaml", "cats and dogs", SettingsError, "no line of that form"),
        ("x.yaml", "cat: a\ncat: b\ndog: c\n", SettingsError, "names a label twice"),
        ("x.txt", "", SettingsError, "holds no names"),
        ("none.txt", None, SettingsError, "cannot be read"),
        ("none.yaml", None, SettingsError, "cannot be read"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, name: str, content: str | None, error: type[D3hrError], words: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=words):
        load_images(class_folders(tmp_path / "plain"), class_names=tmp_path / name)


def test_any_classes_can_be_renamed_by_a_file(tmp_path: Path) -> None:
    """The labels stay."""
    (tmp_path / "x.yaml").write_text("cat: zebra\ndog: ant\nbird: eagle\n")
    images = load_images(class_folders(tmp_path / "plain"), class_names=tmp_path / "x.yaml")
    assert images.counts == {"zebra": 2, "ant": 1}


def test_shards_and_saved_folders_have_splits(tmp_path: Path) -> None:
    source = in_shards("cls", str)(made(tmp_path / "shards"))
    assert load_images(source).splits == ("test", "train")
    for given in (source, saved(splits=True)(made(tmp_path / "saved"))):
        assert load_images(given).split == "train"
    images = load_images(source)
    assert pickle.loads(pickle.dumps(images)).of_class("cat").equal(images.of_class("cat"))


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_give_the_pixels_they_hold(tmp_path: Path, name: str) -> None:
    images = load_images(ARRAYS[name](tmp_path))
    assert list(images.counts.values()) == [2, 1]
    assert images.class_names in {("cat", "dog"), ("0", "1"), ("3", "7")}
    expected = pixels()[..., :1].repeat(3, -1) if "idx" in name else pixels()
    assert np.array_equal(images.tensors()[0].permute(0, 2, 3, 1).numpy(), expected)
    if images.splits:
        assert images.split == "train"
        assert images.splits == (("train",) if name == "one idx file of images" else ("test", "train"))
    assert pickle.loads(pickle.dumps(images)).of_class(images.class_names[1]).equal(images.of_class(images.class_names[1]))


@pytest.mark.parametrize(("build", "name"), [(cifar_10, "cifar10"), (cifar_100, "cifar100")])
def test_pickles_of_cifar_are_converted_by_the_line_that_the_refusal_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[[Path], Path], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_images(build(made(tmp_path / "given")))
    line = caught.value.hint.partition(": python -c ")[2]
    subprocess.run([sys.executable, "-c", line.strip('"')], check=True)
    images = load_images(f"{name}.npz")
    assert images.counts == COUNTS
    assert images.splits == ("test", "train")
    assert np.array_equal(images.tensors()[0].numpy(), pixels_of_cifar())


def test_sixteen_bits_in_an_array_are_as_in_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.full((2, 8, 8), 4095, np.uint16), labels=[0, 1])
    images = load_images(tmp_path / "x.npz")
    assert images.bits == 12
    assert images.of_class("0").unique().tolist() == [255]


@pytest.mark.parametrize("name", ["a table with a column split", "metadata.csv in train/ and test/"])
def test_tables_have_splits(tmp_path: Path, name: str) -> None:
    source = READ[name](tmp_path)
    assert load_images(source).splits == (("test", "train") if "column" in name else ())
    with pytest.raises(DataError, match="fewer than two classes"):
        load_images(source, split="test")


def rows_of(*rows: list[str]) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        write_csv(loose(root) / "labels.csv", ["file", "label"], [["1.png", "cat"], ["2.png", "dog"], *rows])
        draw(root.parent / "secret.png", 9)
        return root

    return build


def slipping_zip(root: Path) -> Path:
    with zipfile.ZipFile(root / "evil.zip", "w") as archive:
        archive.write(draw_one(root), "../../evil.png")
    return root / "evil.zip"


def draw_one(root: Path) -> Path:
    draw(root / "one.png", 0)
    return root / "one.png"


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def cut(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:-count])
    return path


def without_labels(root: Path) -> Path:
    path = in_idx("", "", given="train-images-idx3-ubyte")(root)
    (root / "train-labels-idx1-ubyte").unlink()
    return path


def cut_zip(root: Path) -> Path:
    return cut(zipped(root), 30)


def cut_tgz(root: Path) -> Path:
    return cut(tarred("w:gz", ".tgz")(root), 200)


def torn_tgz(root: Path) -> Path:
    path = tarred("w:gz", ".tgz")(root)
    blob = path.read_bytes()
    path.write_bytes(blob[:40] + b"\xff" * 40 + blob[80:])
    return path


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        (root / name).write_bytes(content)
        return root / name

    return build


REFUSED: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "a row whose file is not there": (rows_of(["x.png", "cat"]), r"1 row\(s\)", r"row 3: x\.png is not there"),
    "a row without a label": (rows_of(["3.png", ""]), r"1 row\(s\)", r"row 3: 3\.png has no label"),
    "a row of a file elsewhere": (rows_of(["../secret.png", "cat"]), r"1 row\(s\)", r"row 3: \.\./secret\.png lies outside"),
    "a file in two rows": (rows_of(["1.png", "dog"]), r"1 row\(s\)", r"row 3: 1\.png was in a row before, as 'cat' and not as 'dog'"),
    "a table of unusual columns": (in_csv("labels.csv", ["photo", "breed"]), "does not say what they are", "columns: photo, breed"),
    "a table that is no table": (rows_of(["3.png", "dog", "x", "y"]), "is no table", "4 values in row 3, of 2 columns"),
    "an encrypted or damaged zip": (cut_zip, "pets.zip", "unknown kind|damaged|ReadError|an archive"),
    "a damaged tar.gz": (cut_tgz, "is damaged", "EOFError"),
    "a tar.gz that is damaged within": (torn_tgz, "is damaged", "while decompressing"),
    "a zip whose names lead out of it": (slipping_zip, "lead out of it", r"\.\./\.\./evil\.png"),
    "an example of a shard without a label": (unlabelled_shard, "has no label", r"6\.png"),
    "a damaged parquet file": (lambda root: cut(in_parquet("bytes")(root), 9), "cannot be opened", "ArrowInvalid"),
    "CIFAR-10's pickles": (cifar_10, "unpickled", "this looks like CIFAR-10's Python pickles"),
    "CIFAR-100's pickles": (cifar_100, "unpickled", "this looks like CIFAR-100's Python pickles"),
    "CIFAR-10's pickles in a tar.gz": (tarred("w:gz", ".tgz", lambda root: cifar_10(made(root))), "unpickled", "CIFAR-10's Python pickles"),
    "CIFAR-10's binary files": (lambda root: written("data_batch_1.bin", b"0")(root).parent, "unpickled", "CIFAR-10's binary files"),
    "one pickle": (written("x.pkl", pickle.dumps([1])), "unpickled", "a Python pickle"),
    "an .npz of Python objects": (in_npz(images=None, labels=[{}, {}, {}]), "holds Python objects", "allow_pickle"),
    "an .npz of other arrays": (in_npz(embeddings=[1.0]), "no arrays of images and labels", "arrays: embeddings"),
    "an .npz of floats": (in_npz(images=np.ones((2, 8, 8)), labels=[0, 1]), "brightness is not known", r"float64 from 1\.0 to 1\.0"),
    "an .npz of several labels per image": (in_npz(images=None, labels=[[1, 1], [0, 1], [0, 0]]), "not one per image", "several labels"),
    "a damaged .npz": (lambda root: cut(in_npz(images=None, labels=[0, 0, 1])(root), 40), "is damaged", "zip"),
    "a damaged idx file": (lambda root: cut(in_idx("", "", given="train-images-idx3-ubyte")(root), 9), "is damaged", "bytes of pixels"),
    "an idx file without its labels": (without_labels, "There is no", "images without their labels"),
    "one image": (draw_one, "is no data set", "one PNG image"),
    "one PDF": (written("x.pdf", b"%PDF-1.7 ..."), "is no data set", "a PDF file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    build, what, found = REFUSED[name]
    (tmp_path / "given").mkdir()
    with pytest.raises(DataError) as caught:
        load_images(build(tmp_path / "given"))
    assert re.search(what, caught.value.what)
    assert re.search(found, caught.value.found)
    assert caught.value.hint


def test_patterns_that_find_no_label_are_refused(tmp_path: Path) -> None:
    source = named_by_label(tmp_path)
    for pattern, error, words in [
        ("(", SettingsError, "no regular expression"),
        ("[a-z]+", SettingsError, "no group called label"),
        ("(?P<label>dog)", DataError, "no label in 2 of 3"),
    ]:
        with pytest.raises(error, match=words):
            load_images(source, label_pattern=pattern)


def test_images_that_a_table_does_not_name_are_ignored_and_counted(tmp_path: Path) -> None:
    source = rows_of()(tmp_path / "data")
    assert load_images(source).ignored == ("3.png",)


def test_class_folders_count_for_more_than_a_table(tmp_path: Path) -> None:
    assert load_images(table_next_to_class_folders(tmp_path)).class_names == ("cat", "dog")


def test_an_archive_s_images_travel_to_other_processes(tmp_path: Path) -> None:
    """A worker opens the archive anew."""
    for build in (zipped, tarred("w:gz", ".tgz")):
        (tmp_path / build.__name__).mkdir()
        images = load_images(build(tmp_path / build.__name__))
        assert pickle.loads(pickle.dumps(images)).of_class("cat").equal(images.of_class("cat"))


def test_nothing_of_an_archive_is_written(tmp_path: Path) -> None:
    source = zipped(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    load_images(source)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three megabytes of zeros in three kilobytes, against limits of a hundredth."""
    monkeypatch.setattr("d3hr.data.archives.MAX_BYTES", 2**20)
    (tmp_path / "zeros").write_bytes(bytes(3 * 2**20))
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "zeros", "a/zeros")
    with pytest.raises(DataError, match="too large when it is unpacked"):
        load_images(tmp_path / "bomb.tar.gz")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive_of_zeros:
        for name in ("a/zeros.png", "b/zeros.png"):
            archive_of_zeros.write(tmp_path / "zeros", name)
    with pytest.raises(DataError, match=r"(?s)2 image\(s\).*no content"):
        load_images(tmp_path / "bomb.zip")


def test_names_in_a_zip_of_macos_are_utf_8(tmp_path: Path) -> None:
    """It does not set the flag that says so."""
    class_folders(tmp_path / "x")
    os.rename(tmp_path / "x" / "dog", tmp_path / "x" / "köter")
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "x")
    blob = bytearray((tmp_path / "x.zip").read_bytes())
    for place in [match.start() for match in re.finditer(rb"PK\x01\x02", blob)]:
        blob[place + 9] &= 0xF7
    for place in [match.start() for match in re.finditer(rb"PK\x03\x04", blob)]:
        blob[place + 7] &= 0xF7
    (tmp_path / "x.zip").write_bytes(blob)
    assert load_images(tmp_path / "x.zip").class_names == ("cat", "köter")


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    source = tmp_path / "x.zip"
    class_folders(tmp_path / "x")
    shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "x")
    blob = bytearray(source.read_bytes())
    blob[blob.index(b"cat/1.png") + 60] ^= 0xFF
    source.write_bytes(blob)
    with pytest.raises(D3hrError, match=r"cat/1\.png"):
        load_images(source)
    assert open_archive(source).exists()
