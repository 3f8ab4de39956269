"""Kinds of files: each is read by its own reader or refused by name, and 16-bit pictures are as bright as their values mean."""

import io
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from d3hr import load_images
from d3hr.data.codec import examine, open_upright
from d3hr.data.formats import IMAGE_SUFFIXES, START, kind_of, what_else
from d3hr.data.headers import MAX_PIXELS
from d3hr.errors import DataError, UnreadableImages
from tests.conftest import MakeFolder

RED, BLUE = (255, 0, 0), (0, 0, 255)
WRITERS = {
    "PNG": "png",
    "JPEG": "jpeg",
    "WebP": "webp",
    "BMP": "bmp",
    "TIFF": "tiff",
    "GIF": "gif",
    "AVIF": "avif",
    "JPEG 2000": "jpeg2000",
}


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_16_bits(values: NDArray[np.uint16], *, significant: int | None = None) -> bytes:
    """A PNG of the values [H, W] or [H, W, 3], with a chunk sBIT if ``significant`` is given; Pillow writes neither."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    colours = 1 if values.ndim == 2 else 3
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0 if colours == 1 else 2, 0, 0, 0)
    told = chunk(b"sBIT", bytes([significant] * colours)) if significant else b""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + told + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def grey(value: int) -> NDArray[np.uint16]:
    return np.full((8, 8), value, dtype=np.uint16)


@pytest.mark.parametrize("name", WRITERS)
def test_each_kind_is_told_by_its_first_bytes_and_read(name: str) -> None:
    blob = encoded(Image.new("RGB", (8, 6), RED), WRITERS[name])
    kind = kind_of(blob[:START])
    assert kind is not None
    assert kind.name == name
    assert open_upright(blob).size == (8, 6)
    assert open_upright(blob).getpixel((4, 4)) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_tiff_is_read_in_its_compressions(compression: str) -> None:
    blob = encoded(Image.new("RGB", (8, 8), RED), "tiff", compression=compression)
    assert open_upright(blob).getpixel((4, 4)) == pytest.approx(RED, abs=3)


def test_the_first_picture_of_an_mpo_file_is_read() -> None:
    blob = encoded(Image.new("RGB", (8, 8), RED), "mpo", save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)])
    assert open_upright(blob).getpixel((4, 4)) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "png", "avif"])
def test_the_first_of_several_frames_is_read_and_said(image_folder: MakeFolder, kind: str) -> None:
    blob = encoded(Image.new("RGB", (8, 8), RED), kind, save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)])
    assert examine(blob).frames
    assert not examine(encoded(Image.new("RGB", (8, 8), RED), kind)).frames
    assert open_upright(blob).getpixel((4, 4)) == pytest.approx(RED, abs=3)
    root = image_folder({"a": 1, "b": 1})
    (root / "a" / f"many.{kind}").write_bytes(blob)
    assert [line for line in load_images(root).notes if "1 image(s) of several frames or pages" in line and f"many.{kind}" in line]


def test_files_are_judged_by_their_first_bytes(image_folder: MakeFolder) -> None:
    """No suffix, a wrong one, or an unknown one: an image is an image; notes, copies and unfinished downloads are not."""
    root = image_folder({"a": 1, "b": 1})
    png = (root / "a" / "0.png").read_bytes()
    for name in ("none", "wrong.gif", "photo.jpg_large", "photo.dat", "LOUD.TIFF"):
        (root / "a" / name).write_bytes(png)
    for name in ("copy.png.bak", "download.jpg.part"):
        (root / "a" / name).write_bytes(png)
    (root / "a" / "BMW.txt").write_text("BMW is a maker of cars, and this is no bitmap.")
    images = load_images(root, keep_duplicates=True)
    assert images.counts == {"a": 6, "b": 1}
    assert set(images.ignored) == {"a/copy.png.bak", "a/download.jpg.part", "a/BMW.txt"}


def test_a_camera_s_raw_file_is_no_tiff(image_folder: MakeFolder) -> None:
    """It starts as one, with a thumbnail of the photo."""
    root = image_folder({"a": 1, "b": 1})
    (root / "a" / "DSC_1.NEF").write_bytes(encoded(Image.new("RGB", (8, 8)), "tiff"))
    assert load_images(root).counts["a"] == 1


def test_no_reader_but_those_of_the_table_sees_a_file() -> None:
    """Pillow would hand PostScript to Ghostscript, whatever the file is called."""
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", encoded(Image.new("RGB", (8, 8)), "ppm")):
        assert kind_of(content[:START]) is None
        with pytest.raises(ValueError, match=r"not an image of a kind that is read|PostScript"):
            open_upright(content)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"%PDF-1.7", "a PDF file"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "a video"),
        (b"PK\x03\x04", "an archive"),
        (b"\x93NUMPY\1\0", "an array of NumPy"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(content: bytes, word: str) -> None:
    assert word in what_else(content)
    with pytest.raises(ValueError, match=word):
        open_upright(content)


def test_heic_is_known_and_says_what_it_needs() -> None:
    """A header alone: without the extra the message says how to get it, and with it that the file is damaged."""
    header = struct.pack(">I", 28) + b"ftypheic\0\0\0\0mif1heicmiaf"
    kind = kind_of(header)
    assert kind is not None
    assert kind.name == "HEIC"
    assert ".heic" in IMAGE_SUFFIXES
    with pytest.raises(ValueError, match=r"d3hr\[heic\]|damaged"):
        open_upright(header)
    avif = kind_of(struct.pack(">I", 28) + b"ftypmif1\0\0\0\0avifmif1miaf")
    assert avif is not None
    assert avif.name == "AVIF"


@pytest.mark.parametrize("kind", ["bmp", "gif", "tiff"])
def test_every_kind_has_the_limits_of_the_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header says 20,000 x 20,000 pixels: refused before pixels exist."""
    blob = bytearray(encoded(Image.new("L", (8, 8)), kind))
    if kind == "bmp":
        blob[18:26] = struct.pack("<ii", 20_000, 20_000)
    elif kind == "gif":
        blob[6:10] = struct.pack("<HH", 20_000, 20_000)
    else:
        for tag in (256, 257):
            place = bytes(blob).index(struct.pack("<HHI", tag, 4, 1))
            blob[place + 8 : place + 12] = struct.pack("<I", 20_000)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=f"20000 x 20000 pixels, over the limit of {MAX_PIXELS:,}"):
        open_upright(bytes(blob))


@pytest.mark.parametrize("value", [0, 4096, 51200, 65535])
def test_real_16_bits_are_the_upper_8(value: int) -> None:
    for blob in (png_of_16_bits(grey(value)), png_of_16_bits(np.dstack([grey(value)] * 3)), encoded(Image.fromarray(grey(value)), "tiff")):
        assert open_upright(blob).getpixel((4, 4)) == (value >> 8,) * 3


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (png_of_16_bits(grey(2048), significant=12), 0),  # scaled, as the specification says: the lower four bits are zero
        (png_of_16_bits(grey(2053), significant=12), 128),
        (png_of_16_bits(np.dstack([grey(2053)] * 3), significant=12), 128),
        (png_of_16_bits(grey(32768), significant=12), 128),
        (encoded(Image.fromarray(grey(2053)), "tiff", tiffinfo={341: 4095}), 128),
        (encoded(Image.fromarray(grey(2053)), "tiff", tiffinfo={341: 65535}), 8),
    ],
    ids=["scaled dark", "unscaled", "unscaled colour", "scaled", "12 of 16", "16 of 16"],
)
def test_a_file_may_tell_how_many_bits_count(blob: bytes, expected: int) -> None:
    assert examine(blob).peak is None
    assert open_upright(blob).getpixel((4, 4)) == (expected if expected else 8,) * 3


@pytest.mark.parametrize(("largest", "bits", "expected"), [(255, 8, 100), (4095, 12, 6), (4096, 16, 0), (65535, 16, 0)])
def test_a_data_set_may_show_how_many_bits_count(tmp_path: Path, largest: int, bits: int, expected: int) -> None:
    """One picture of 100, and one that holds the largest value: both are scaled alike, by what all of them show."""
    for name, value in (("dark", 100), ("light", largest)):
        (tmp_path / name).mkdir()
        for colours, values in (("grey", grey(value)), ("colour", np.dstack([grey(value)] * 3))):
            (tmp_path / name / f"{colours}.png").write_bytes(png_of_16_bits(values))
    images = load_images(tmp_path)
    assert images.bits == bits
    assert images.of_class("dark").unique().tolist() == [expected]
    assert images.of_class("light").unique().tolist() == [min(largest >> (bits - 8), 255)]
    assert any("4 16-bit picture(s) hold no value above" in line for line in images.notes) == (bits < 16)


def test_pictures_without_a_white_are_refused(image_folder: MakeFolder) -> None:
    root = image_folder({"a": 1, "b": 1})
    for name, values in (("float", np.ones((8, 8), dtype=np.float32)), ("int", np.ones((8, 8), dtype=np.int32))):
        (root / "a" / f"{name}.tif").write_bytes(encoded(Image.fromarray(values), "tiff"))
    with pytest.raises(UnreadableImages) as caught:
        load_images(root)
    assert "a/float.tif: a TIFF of floating-point numbers" in caught.value.files[0]
    assert "a/int.tif: a TIFF of 32-bit numbers" in caught.value.files[1]


def test_white_may_be_zero_in_a_tiff() -> None:
    blob = encoded(Image.fromarray(grey(0)), "tiff", tiffinfo={262: 0})
    assert open_upright(blob).getpixel((4, 4)) == (255, 255, 255)


def test_an_image_in_another_kind_is_the_same_image(image_folder: MakeFolder, tmp_path: Path) -> None:
    root = image_folder({"a": 1, "b": 1})
    shutil.copytree(root, tmp_path / "bmp")
    Image.open(root / "a" / "0.png").save(tmp_path / "bmp" / "a" / "0.bmp")
    (tmp_path / "bmp" / "a" / "0.png").unlink()
    assert load_images(tmp_path / "bmp").of_class("a").equal(load_images(root).of_class("a"))


@pytest.mark.parametrize(
    ("suffix", "kind", "do"), [(".CR2", "2 camera raw files", "camera's software"), (".svg", "2 vector drawings", "export them as PNG")]
)
def test_a_class_of_a_refused_kind_says_which_and_what_to_do(image_folder: MakeFolder, suffix: str, kind: str, do: str) -> None:
    root = image_folder({"a": 1, "b": 1})
    (root / "c").mkdir()
    for name in "xy":
        (root / "c" / (name + suffix)).write_bytes(b"II*\0 and so on")
    with pytest.raises(DataError, match="Class 'c'") as caught:
        load_images(root)
    assert caught.value.found == kind
    assert do in caught.value.hint


def test_a_class_of_unreadable_images_says_why(image_folder: MakeFolder) -> None:
    root = image_folder({"a": 1, "b": 1})
    (root / "a" / "0.png").write_bytes(b"%PDF-1.7")
    with pytest.raises(DataError, match="Class 'a'") as caught:
        load_images(root, on_bad_image="skip")
    assert caught.value.found == "a/0.png: a PDF file: export its pages as PNG"
