import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from d3hr import load_images
from d3hr.data.codec import open_upright
from d3hr.errors import DataError, SettingsError, UnreadableImages
from tests.conftest import MakeFolder, write_parquet


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in some 400 kB: header, compressed zeros, end."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_digits_are_split_once() -> None:
    """1,797 images without overlap, every class in every split; labels are the digits."""
    parts = [load_images("digits", split=split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1197, 240, 360]
    assert load_images("digits").fingerprint == parts[0].fingerprint
    assert len({part.fingerprint for part in parts}) == 3
    assert parts[0].class_names == tuple("0123456789")
    assert parts[0].image_size == 8
    assert min(parts[2].counts.values()) >= 30


def test_a_class_streams_in_batches(image_folder: MakeFolder) -> None:
    """Batches hold [n, 3, H, W] in [-1, 1] in the files' order; gather gives the same images by position."""
    images = load_images(image_folder({"ant": 5, "bee": 3}))
    assert images.counts == {"ant": 5, "bee": 3}
    seen = {name: list(batches) for name, batches in images}
    assert [batch.shape for batch in images.batches("ant", 2)] == [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
    gathered, labels = images.gather([0, 4, 5, 7])
    assert labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(gathered[1], seen["ant"][0][4])
    assert torch.equal(gathered[3], seen["bee"][0][2])
    assert gathered.min() >= -1
    assert gathered.max() <= 1
    assert images[5][1] == 1
    with pytest.raises(IndexError):
        images[8]


def test_pixel_values_are_exact(tmp_path: Path) -> None:
    """0 becomes -1 and 255 becomes 1."""
    for name, value in (("dark", 0), ("light", 255)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), (value,) * 3).save(tmp_path / name / "a.png")
    images, _ = load_images(tmp_path).gather([0, 1])
    assert images[0].unique().tolist() == [-1]
    assert images[1].unique().tolist() == [1]


RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("L", (8, 8), 100), "png", (100, 100, 100)),
        (Image.new("RGB", (8, 8), RED), "webp", RED),
        (Image.new("RGB", (8, 8), RED).convert("P", palette=Image.Palette.ADAPTIVE), "png", RED),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 255)), "png", RED),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "png", (255, 255, 255)),
        (Image.new("LA", (8, 8), (0, 128)), "png", (127, 127, 127)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpeg", RED),
        (Image.fromarray(np.full((8, 8), 51200, dtype=np.uint16)), "png", (200, 200, 200)),
        (Image.new("1", (8, 8), 1), "png", (255, 255, 255)),
    ],
    ids=["grey", "webp", "palette", "opaque", "transparent", "half", "cmyk", "16-bit", "bilevel"],
)
def test_every_mode_becomes_rgb(image: Image.Image, kind: str, expected: tuple[int, int, int]) -> None:
    decoded = open_upright(encoded(image, kind))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((4, 4)) == pytest.approx(expected, abs=2)


def test_exif_rotation_is_applied() -> None:
    """A landscape picture, red at the left, stored with orientation 6 (turn clockwise by 90): portrait, red at the top."""
    image = Image.new("RGB", (16, 8), (0, 0, 255))
    image.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = open_upright(encoded(image, "png", exif=exif))
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2)) == RED


def test_images_are_cropped_to_their_centre(tmp_path: Path) -> None:
    """A 24 x 8 picture whose middle third is red is all red at 8 px; scaled to 4 px, all but the blended border."""
    for name in "ab":
        (tmp_path / name).mkdir()
        image = Image.new("RGB", (24, 8))
        image.paste(RED, (8, 0, 16, 8))
        image.save(tmp_path / name / "x.png")
    images = load_images(tmp_path)
    assert images.image_size == 8
    assert images[0][0][0].unique().tolist() == [1]
    small = images.at_size(4)[0][0]
    assert small.shape == (3, 4, 4)
    assert small[0, :, 1:3].min() > 0.95


def test_order_and_depth_of_files_do_not_matter_to_classes(image_folder: MakeFolder) -> None:
    root = image_folder({"b": 2, "a": 2})
    (root / "a" / "deeper").mkdir()
    shutil.move(root / "a" / "1.png", root / "a" / "deeper" / "1.png")
    (root / "a" / "notes.txt").write_text("hello")
    (root / ".hidden").mkdir()
    images = load_images(root)
    assert images.class_names == ("a", "b")
    assert images.counts == {"a": 2, "b": 2}
    assert images.ignored == (".hidden/", str(Path("a") / "notes.txt"))


def test_a_folder_with_splits(image_folder: MakeFolder) -> None:
    root = image_folder({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    assert len(load_images(root)) == 4
    assert load_images(root).split == "train"
    assert len(load_images(root, split="test")) == 2
    with pytest.raises(DataError, match=r"splits: test, train"):
        load_images(root, split="validation")


def test_parquet_gives_the_same_images_as_a_folder(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Class names come from the label feature, in its order; slashes in names are no harm."""
    root = image_folder({"x": 2, "y": 3})
    write_parquet(tmp_path / "table", sorted(root.rglob("*.png")), [1, 1, 0, 0, 0], ["y/z", "x"])
    table, folder = load_images(tmp_path / "table"), load_images(root)
    assert table.class_names == ("y/z", "x")
    assert table.counts == {"y/z": 3, "x": 2}
    assert torch.equal(next(table.batches("x")), next(folder.batches("x")))


def test_splits_of_a_table_are_found_by_their_kind(image_folder: MakeFolder, tmp_path: Path) -> None:
    """val is "validation" to ``datasets``. Without a split to train on, the first is not simply taken: it may be the test images."""
    files = sorted(image_folder({"x": 1, "y": 1}).rglob("*.png"))
    table = write_parquet(tmp_path / "table", files, [0, 1], ["x", "y"])
    (table / "train-00000-of-00001.parquet").rename(table / "test-00000-of-00001.parquet")
    assert load_images(table).split == "test"
    shutil.copy(table / "test-00000-of-00001.parquet", table / "validation-00000-of-00001.parquet")
    with pytest.raises(DataError, match="none to train on") as caught:
        load_images(table)
    assert "validation, test" in caught.value.found
    images = load_images(table, split="val")
    assert (images.split, images.splits) == ("validation", ("validation", "test"))


def test_parquet_columns_that_are_not_clear_are_asked_for(image_folder: MakeFolder, tmp_path: Path) -> None:
    root = image_folder({"x": 1, "y": 1})
    blobs = [{"bytes": path.read_bytes(), "path": None} for path in sorted(root.rglob("*.png"))]
    features = datasets.Features(
        {"left": datasets.Image(), "right": datasets.Image(), "kind": datasets.Value("string"), "sort": datasets.Value("string")}
    )
    table = datasets.Dataset.from_dict({"left": blobs, "right": blobs, "kind": ["p", "q"], "sort": ["r", "s"]}, features=features)
    (tmp_path / "table").mkdir()
    table.to_parquet(tmp_path / "table" / "train.parquet")
    with pytest.raises(DataError, match="--image-column"):
        load_images(tmp_path / "table")
    images = load_images(tmp_path / "table", image_column="right", label_column="sort")
    assert images.class_names == ("r", "s")


BAD = {
    "empty.png": (b"", "no content"),
    "text.jpg": (b"hello", "not an image of a kind that is read: PNG"),
    "one.png": (encoded(Image.new("RGB", (1, 1))), "1 x 1 pixels"),
    "bomb.png": (bomb(), "pixels"),
    "cut.png": (encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))[:4000], "damaged"),
    "cut.jpg": (encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "jpeg")[:2000], "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_named_or_counted(image_folder: MakeFolder, name: str) -> None:
    content, reason = BAD[name]
    root = image_folder({"a": 2, "b": 2})
    (root / "a" / name).write_bytes(content)
    with pytest.raises(UnreadableImages, match=reason) as caught:
        load_images(root)
    assert caught.value.files[0].startswith(str(Path("a") / name))
    images = load_images(root, on_bad_image="skip")
    assert images.counts == {"a": 2, "b": 2}
    assert images.skipped == caught.value.files
    assert len(next(images.batches("a"))) == 2


def test_a_bomb_is_refused_before_its_pixels_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="pixels"):
        open_upright(bomb())


def test_fingerprint_follows_content_and_classes(image_folder: MakeFolder) -> None:
    first = load_images(image_folder({"a": 2, "b": 2}, name="first"))
    again = load_images(image_folder({"a": 2, "b": 2}, name="again"))
    other = load_images(image_folder({"a": 2, "c": 2}, name="other"))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_sources_that_cannot_be_used(image_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    one = image_folder({"only": 3}, name="one")
    loose = image_folder({"a": 1}, name="loose")
    shutil.move(loose / "a" / "0.png", loose / "0.png")
    shutil.rmtree(loose / "a")
    empty = image_folder({"a": 2, "b": 1}, name="empty")
    (empty / "b" / "0.png").unlink()
    for source, words in [
        (tmp_path / "missing", "There is no folder"),
        (tmp_path / "void", "no folder in it"),
        (one, "fewer than two classes"),
        (loose, "1 image"),
        (empty, "Class 'b'"),
        (empty / "a" / "0.png", "one PNG image"),
    ]:
        with pytest.raises(DataError, match=words):
            load_images(source)
    with pytest.raises(SettingsError, match="image size"):
        load_images("digits", image_size=1)
    with pytest.raises(SettingsError, match="on-bad-image"):
        load_images("digits", on_bad_image="ignore")  # type: ignore[arg-type]


def test_renamed_classes_keep_their_images(image_folder: MakeFolder) -> None:
    """The labels stay, the names and the fingerprint change; names that are too few or not distinct are refused."""
    images = load_images(image_folder({"x": 1, "y": 2}))
    renamed = images.renamed(["right", "left"])
    assert renamed.counts == {"right": 1, "left": 2}
    assert torch.equal(next(renamed.batches("left")), next(images.batches("y")))
    assert images.class_names == ("x", "y")
    assert renamed.fingerprint != images.fingerprint
    for names in (["a"], ["a", "a"]):
        with pytest.raises(DataError, match="cannot be given"):
            images.renamed(names)


def test_two_tables_of_one_name_and_card_are_not_taken_for_each_other(image_folder: MakeFolder, tmp_path: Path) -> None:
    """The cache of ``datasets`` is keyed by folder name and card alone: the second folder would give the first's images."""
    files = sorted(image_folder({"x": 1, "y": 2}).rglob("*.png"))
    for place, labels in (("one", [0, 1, 1]), ("two", [0, 0, 1])):
        (tmp_path / place).mkdir()
        table = write_parquet(tmp_path / place / "table", files, labels, ["x", "y"])
        (table / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train-*\n---\n")
    assert load_images(tmp_path / "one" / "table").counts == {"x": 1, "y": 2}
    assert load_images(tmp_path / "two" / "table").counts == {"x": 2, "y": 1}


def test_a_file_that_vanishes_after_the_check_is_named(image_folder: MakeFolder) -> None:
    """It was there at the scan: the error says which one, and that running again checks anew."""
    images = load_images(image_folder({"a": 2, "b": 2}))
    (Path(images.source) / "b" / "1.png").unlink()
    with pytest.raises(DataError, match=r"b/1\.png of .* can no longer be read") as caught:
        next(images.batches("b"))
    assert "no content" in caught.value.found
    assert "run again" in caught.value.hint
    next(images.batches("a"))


def test_links_in_a_circle_are_followed_once(image_folder: MakeFolder) -> None:
    """Followed again and again they would count each image some forty times, the operating system's limit; two of them never end."""
    root = image_folder({"a": 2, "b": 2})
    for name in ("one", "two"):
        (root / "a" / name).symlink_to(root / "a")
    assert load_images(root).counts == {"a": 2, "b": 2}


def test_what_is_no_plain_file_is_not_opened(image_folder: MakeFolder) -> None:
    """A pipe would be waited for and /dev/zero never ends."""
    root = image_folder({"a": 2, "b": 2})
    os.mkfifo(root / "a" / "pipe.png")
    (root / "b" / "zero.png").symlink_to("/dev/zero")
    assert len(load_images(root, on_bad_image="skip").skipped) == 2


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_damaged_picture() -> None:
    """A directory of nine entries that ends within the first."""
    assert open_upright(encoded(Image.new("RGB", (8, 4)), "jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12\0\x03")).size == (8, 4)


def test_names_that_are_no_text(image_folder: MakeFolder) -> None:
    """A class named in another encoding cannot stand in a manifest; control characters in a file's name do not reach the terminal."""
    root = image_folder({"a": 2, "b": 2})
    (root / "a" / "\x1b[2J.png").write_bytes(b"")
    assert load_images(root, on_bad_image="skip").skipped[0].startswith("a/\\x1b[2J.png: ")
    os.rename(os.fsencode(root / "b"), os.fsencode(root) + b"/\xff")
    with pytest.raises(DataError, match="not text"):
        load_images(root)


def test_a_table_names_no_file_outside_its_folder(image_folder: MakeFolder, tmp_path: Path) -> None:
    secret = image_folder({"a": 1}) / "a" / "0.png"
    rows = {"image": [{"bytes": None, "path": str(secret)}] * 2, "label": ["x", "y"]}
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "table" / "train.parquet")
    with pytest.raises(UnreadableImages, match=r"refused: .* lies outside the folder of the table"):
        load_images(tmp_path / "table", image_column="image", label_column="label")


def test_a_table_with_rows_of_no_class_is_refused(image_folder: MakeFolder, tmp_path: Path) -> None:
    image = {"bytes": (image_folder({"a": 1}) / "a" / "0.png").read_bytes(), "path": None}
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict({"image": [image] * 3, "label": ["x", None, "y"]}).to_parquet(tmp_path / "table" / "train.parquet")
    with pytest.raises(DataError, match="1 rows without a class"):
        load_images(tmp_path / "table", image_column="image", label_column="label")


def test_a_source_that_no_path_can_name(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(DataError):
            load_images(name)


def test_a_share_of_each_class_is_held_out(image_folder: MakeFolder) -> None:
    """Of 10, 5 and 2 images a fifth, at least one: 2, 1 and 1. Both parts together are all images, and a class's own do not depend on
    the other classes."""
    root = image_folder({"a": 10, "b": 5, "c": 2})
    images = load_images(root)
    rest, held = images.divided(0.2)
    assert (held.counts, rest.counts) == ({"a": 2, "b": 1, "c": 1}, {"a": 8, "b": 4, "c": 1})
    for name in images.class_names:
        both = sorted(rest.names(name, range(rest.counts[name])) + held.names(name, range(held.counts[name])))
        assert both == sorted(images.names(name, range(images.counts[name])))
    assert len({images.fingerprint, rest.fingerprint, held.fingerprint}) == 3
    again = load_images(root, hold_out=0.2)
    assert (again.fingerprint, again.hold_out, again.record.hold_out, len(again)) == (rest.fingerprint, 0.2, 0.2, 13)
    shutil.rmtree(root / "c")
    assert load_images(root).divided(0.2)[1].names("a", range(2)) == held.names("a", range(2))


@pytest.mark.parametrize("share", [0, 1, -0.5])
def test_a_share_to_hold_out_lies_between_0_and_1(image_folder: MakeFolder, share: float) -> None:
    with pytest.raises(SettingsError, match="between 0 and 1"):
        load_images(image_folder({"a": 3, "b": 3})).divided(share)


def test_a_class_with_one_image_is_not_divided(image_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match=r"cannot be divided(?s:.*)b"):
        load_images(image_folder({"a": 3, "b": 1}), hold_out=0.5)
