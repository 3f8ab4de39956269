"""Reads image files and the headers of images within limits; no pixels are decoded here."""

import io
import os
import stat
from pathlib import Path
from typing import IO, NamedTuple, Self

from PIL.Image import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from d3hr.data.depth import refusal
from d3hr.data.formats import READ, START, MissingReader, kind_of, what_else

MAX_PIXELS = 89_478_485
"""Largest width x height that is decoded (Pillow's own limit against decompression bombs, here an error)."""
MAX_BYTES = 2**28
"""Largest encoded image that is read: 256 MiB, over what :data:`MAX_PIXELS` of any photograph take."""
MIN_SIDE = 4
"""Smallest side, in pixels, that counts as a picture."""
ORIENTATION = 0x0112
"""The EXIF tag of how an image is rotated or mirrored."""
_TELL_ORIENTATION = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
"""Names, in Pillow, of the data of an image in which it looks for its orientation."""
_EMPTY = f"no content: an empty file, none at all, one that may not be read, or over {MAX_BYTES:,} bytes"


class NoContent(bytes):
    """Empty content in place of an image that was not read, and the reason."""

    reason: str

    def __new__(cls, reason: str) -> Self:
        """Return empty bytes with a reason."""
        content = super().__new__(cls)
        content.reason = reason
        return content


def content_at(place: str) -> bytes:
    """Return what :func:`content_of` does, of a file on the disk; without a ``Path``, in a third of its time."""
    try:
        with open(place, "rb", buffering=0, opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            return file.readall() if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES else b""
    except (OSError, ValueError):
        return b""


def _open_at_once(place: str, flags: int) -> int:
    """Open a file, and do not wait for a pipe until somebody writes into it."""
    return os.open(place, flags | getattr(os, "O_NONBLOCK", 0))


def content_of(path: Path) -> bytes:
    """Return the content of a plain file of at most :data:`MAX_BYTES`; empty bytes for anything else."""
    try:
        return path.read_bytes() if _is_readable(path) else b""
    except (OSError, ValueError):
        return b""


def _is_readable(path: Path) -> bool:
    """Return whether something is a plain file of at most :data:`MAX_BYTES`."""
    status = path.stat()
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES


def start_of(path: Path) -> bytes:
    """Return the first bytes of a plain file, as many as tell its kind; empty bytes for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(START)
    except (OSError, ValueError):
        return b""


class Found(NamedTuple):
    """What one image is, found by decoding it.

    Attributes:
        size: width and height in pixels, upright.
        peak: largest value of a 16-bit picture whose file does not tell its range, 0 to 65,535; None for any other.
        frames: whether it has several frames or pages, of which the first is read.
    """

    size: tuple[int, int]
    peak: int | None
    frames: bool


def open_header(blob: bytes) -> ImageFile:
    """Read the header of one encoded image; its pixels are not decoded.

    Raises:
        ValueError: it is empty, is no image of a kind that is read, its header is damaged, or its size is too small or too large.
    """
    if isinstance(blob, NoContent):
        raise ValueError(blob.reason)
    if not blob:
        raise ValueError(_EMPTY)
    return _header(io.BytesIO(blob))


def _header(file: IO[bytes]) -> ImageFile:
    start = file.read(START)
    if not start:
        raise ValueError(_EMPTY)
    kind = kind_of(start)
    if kind is None:
        raise ValueError(what_else(start) or f"not an image of a kind that is read: {READ}")
    file.seek(0)
    try:
        image = kind.reader(file)
    except MissingReader as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # Pillow's readers raise from many unrelated trees
        raise ValueError(f"damaged: {error}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, over the limit of {MAX_PIXELS:,}")
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"{width} x {height} pixels, under {MIN_SIDE} a side")
    return image


def examine_header(content: bytes | Path) -> Found:
    """Return what the header of an encoded image, or of an image file, says that it is; its peak is not known.

    Of a file no more is read than that takes.

    Raises:
        ValueError: as :func:`open_header`.
    """
    if isinstance(content, bytes):
        return _stated(open_header(content))
    try:
        if _is_readable(content):
            with content.open("rb") as file:
                return _stated(_header(file))
    except OSError:
        pass
    raise ValueError(_EMPTY)


def may_be_turned(image: Image) -> bool:
    """Return whether an image has data that may tell its orientation: reading EXIF data where there are none takes as long as a header."""
    return isinstance(image, TiffImageFile) or not image.info.keys().isdisjoint(_TELL_ORIENTATION)


def _stated(header: ImageFile) -> Found:
    if why := refusal(header):
        raise ValueError(why)
    width, height = header.size
    try:
        # A TIFF's size is upright as it is.
        turned = not isinstance(header, TiffImageFile) and may_be_turned(header) and header.getexif().get(ORIENTATION, 1) in range(5, 9)
        frames = bool(getattr(header, "is_animated", False))
    except Exception:  # damaged EXIF data or frames: any error
        turned = frames = False
    return Found((height, width) if turned else (width, height), None, frames)
