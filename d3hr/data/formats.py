"""Kinds of image files, told apart by their first bytes alone: which are read, by which of Pillow's readers, and what others are.

Pillow's own choice among its readers is never asked: it has some that start other programs, and one for every format of the last forty
years. A file is given to the one reader that this table names, or to none.
"""

from collections.abc import Callable
from typing import IO, NamedTuple

from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

START = 64
"""How many bytes at the beginning of a file tell its kind."""
READ = "PNG, JPEG (and MPO), WebP, BMP, TIFF, GIF, AVIF, JPEG 2000 or, with d3hr[heic], HEIC"
"""The kinds that are read, in words."""


class MissingReader(ValueError):
    """A kind of images needs a package that is not installed."""


def _heic(file: IO[bytes]) -> ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise MissingReader("a HEIC photo, which needs pip install 'd3hr[heic]'; or export the photos as JPEG") from error
    heif: ImageFile = HeifImageFile(file)
    return heif


class Kind(NamedTuple):
    """A kind of image files that is read.

    Attributes:
        name: what it is called.
        suffixes: endings of its files' names, in lower case.
        begins: whether these are the first bytes of such a file.
        reader: opens one; reads the header alone.
    """

    name: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    reader: Callable[[IO[bytes]], ImageFile]


def _brand(*brands: bytes) -> Callable[[bytes], bool]:
    """Return a test whether a file is of the ISO media format with one of ``brands`` as its own or among those it is compatible with."""

    def begins(start: bytes) -> bool:
        end = min(int.from_bytes(start[:4], "big"), START)
        return start[4:8] == b"ftyp" and any(start[place : place + 4] in brands for place in range(8, end, 4) if place != 12)

    return begins


def _is_bmp(start: bytes) -> bool:
    """Return whether a file starts as a bitmap: two letters, and the size of the second header, of which there are seven."""
    return start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)


KINDS = (
    Kind("PNG", (".png", ".apng"), lambda start: start.startswith(b"\x89PNG"), PngImageFile),
    Kind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), lambda start: start.startswith(b"\xff\xd8"), JpegImageFile),
    Kind("WebP", (".webp",), lambda start: start[:4] == b"RIFF" and start[8:12] == b"WEBP", WebPImageFile),
    Kind("BMP", (".bmp", ".dib"), _is_bmp, BmpImageFile),
    Kind("TIFF", (".tif", ".tiff"), lambda start: start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")), TiffImageFile),
    Kind("GIF", (".gif",), lambda start: start.startswith((b"GIF87a", b"GIF89a")), GifImageFile),
    Kind("AVIF", (".avif", ".avifs"), _brand(b"avif", b"avis"), AvifImageFile),
    Kind(
        "JPEG 2000",
        (".jp2", ".j2k", ".jpx", ".j2c", ".jpf"),
        lambda start: start.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")),
        Jpeg2KImageFile,
    ),
    Kind("HEIC", (".heic", ".heif", ".hif"), _brand(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _heic),
)
"""What is read. The first picture of an MPO file is a JPEG, and is read as one."""
IMAGE_SUFFIXES = frozenset(suffix for kind in KINDS for suffix in kind.suffixes)
"""Endings of names that make a file an image, to be read or else named as unreadable, whatever its content."""

_AS_JPEG = "export them as JPEG or PNG"
_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw")
_REFUSED_SUFFIXES = {
    **dict.fromkeys(_RAW, ("camera raw files", f"{_AS_JPEG} with the camera's software")),
    **dict.fromkeys((".svg", ".eps", ".ps", ".ai"), ("vector drawings", "export them as PNG, at the size to be learnt")),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"), ("videos", "extract their frames: ffmpeg -i VIDEO -r 1 %05d.png")),
    **dict.fromkeys((".psd", ".xcf"), ("layered pictures of an editor", f"{_AS_JPEG} with the editor")),
    **dict.fromkeys((".dcm", ".dicom"), ("DICOM files", "export them as PNG, with the window of brightness that matters")),
    **dict.fromkeys((".npy", ".mat", ".h5", ".hdf5"), ("arrays", "save each picture as PNG, or all in one .npz")),
    ".pdf": ("PDF files", "export their pages as PNG"),
    ".jxl": ("JPEG XL files", _AS_JPEG),
    ".exr": ("OpenEXR files", f"{_AS_JPEG}, with the exposure that matters"),
    ".ico": ("icons", "export them as PNG"),
}
"""Ending of a name -> what such files are, and what to do with them."""
_LEFT_ALONE = frozenset({".bak", ".old", ".orig", ".part", ".partial", ".tmp", ".crdownload", ".download", ".lnk"})
"""Endings of copies and of what is not yet there, whose first bytes may well be an image's."""
_OTHERS: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (lambda start: start.startswith(b"version https://git-lfs"), "a pointer of Git LFS: run git lfs pull in its repository"),
    (lambda start: start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")), "a web page: the download has failed"),
    (lambda start: b"<svg" in start or start.startswith(b"<?xml"), "an SVG drawing or other XML: export it as PNG"),
    (lambda start: start.startswith(b"%PDF"), "a PDF file: export its pages as PNG"),
    (lambda start: start.startswith(b"%!PS"), "a PostScript file: export it as PNG"),
    (lambda start: start.startswith(b"8BPS"), "a Photoshop file: export it as PNG"),
    (lambda start: start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")), "a JPEG XL file: export it as JPEG or PNG"),
    (lambda start: start.startswith(b"\x93NUMPY"), "an array of NumPy: save it as PNG"),
    (lambda start: start.startswith((b"PK\x03\x04", b"\x1f\x8b")), "an archive: unpack it"),
    (lambda start: start[4:8] == b"ftyp" or start.startswith(b"\x1aE\xdf\xa3"), "a video: extract its frames"),
)
"""Whether these are the first bytes of something that is often named like an image -> what it is, and what to do."""


def kind_of(start: bytes) -> Kind | None:
    """Return the kind of the image whose file starts with these bytes, at least :data:`START` of them; None if it is none that is read."""
    return next((kind for kind in KINDS if kind.begins(start)), None)


def what_else(start: bytes) -> str:
    """Return what a file that is no image seems to be, and what to do; empty if its first bytes do not tell."""
    return next((what for begins, what in _OTHERS if begins(start)), "")


def refused_kind(suffix: str) -> tuple[str, str] | None:
    """Return what pictures whose names end so are called, and what to do with them; None for images and whatever is no picture."""
    return _REFUSED_SUFFIXES.get(suffix.lower())


def is_image(suffix: str, start: Callable[[], bytes]) -> bool:
    """Return whether a file counts as an image: its name ends as one, or else its first bytes are of one.

    Args:
        suffix: the ending of its name, with the dot; in any case.
        start: returns its first :data:`START` bytes, and is called only where they decide.
    """
    suffix = suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return True
    return suffix not in _REFUSED_SUFFIXES and suffix not in _LEFT_ALONE and kind_of(start()) is not None
