"""Decodes images to upright RGB pixels, within limits that are checked before anything is decoded; converts, resizes and encodes pixels.

Legend: N images, H = W image side.
"""

import io
import stat
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn import functional as F

from d3hr.data.depth import FULL, deep_values, is_deep, refusal, stated_bits, swap_bytes, to_eight_bits
from d3hr.data.formats import READ, START, MissingReader, kind_of, what_else
from d3hr.errors import SettingsError

MAX_PIXELS = 89_478_485
"""Largest width x height that is decoded (Pillow's own limit against decompression bombs, here an error)."""
MAX_BYTES = 2**28
"""Largest encoded image that is read: 256 MiB, over what :data:`MAX_PIXELS` of any photograph take."""
Fit = Literal["crop", "pad", "stretch"]
"""What becomes of pictures that are not square."""
MIN_SIDE = 4
"""Smallest side, in pixels, that counts as a picture."""
_DRAFT = 2
"""Side of a JPEG that is decoded at a fraction of its size, at least, in sides of the picture that it is resized to."""
_ORIENTATION = 0x0112
"""The EXIF tag of how an image is rotated or mirrored."""
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG file, with its checksum, which Pillow does not check."""


class NoContent(bytes):
    """Empty content in place of an image that was not read, and the reason."""

    reason: str

    def __new__(cls, reason: str) -> Self:
        """Return empty bytes with a reason."""
        content = super().__new__(cls)
        content.reason = reason
        return content


def content_of(path: Path) -> bytes:
    """Return the content of a plain file of at most :data:`MAX_BYTES`; empty bytes for anything else."""
    try:
        status = path.stat()
        return path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES else b""
    except (OSError, ValueError):
        return b""


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


def examine(blob: bytes) -> Found:
    """Decode one encoded image and return what it is; errors are those of :func:`open_upright`."""
    image, values, stated, frames = _decode(blob)
    return Found(image.size, int(values.max()) if values is not None and stated is None else None, frames)


def open_upright(blob: bytes, bits: int = FULL, least: int | None = None) -> Image.Image:
    """Decode one encoded image to RGB: EXIF rotation applied, transparency laid on white, 16-bit values scaled to 8 bits.

    Args:
        blob: the content of its file.
        bits: how many bits count in a 16-bit picture whose file does not tell, 8 to 16.
        least: side, in pixels, that the picture will be resized to: a JPEG of many times that is decoded at a half, a quarter or an eighth
            of its own size, but never below twice the side.

    Raises:
        ValueError: it is no image of a kind that is read, is damaged, too small or too large; the size is checked before pixels are
            decoded.
    """
    image, values, stated, _ = _decode(blob, least)
    try:
        if values is not None:
            image = to_eight_bits(values, stated or bits)
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise from many unrelated trees
        raise ValueError(f"damaged: {error}") from error


def _decode(blob: bytes, least: int | None = None) -> tuple[Image.Image, np.ndarray[Any, np.dtype[np.uint16]] | None, int | None, bool]:
    """Return an image as Pillow decodes it, upright; its values if they have 16 bits; how many of these count, as the file tells; whether
    it has several frames.
    """
    header = open_header(blob)
    if why := refusal(header):
        raise ValueError(why)
    try:
        if least and isinstance(header, JpegImageFile):
            header.draft(None, (_DRAFT * least, _DRAFT * least))
        frames = bool(getattr(header, "is_animated", False))
        deep = is_deep(header)
        image = upright(header)
        if not deep:
            return image, None, None, frames
        values = deep_values(image, partial(_low_bytes, blob))
        return image, values, stated_bits(header, blob, values), frames
    except Exception as error:  # Pillow's decoders raise from many unrelated trees
        raise ValueError(f"damaged: {error}") from error


def _low_bytes(blob: bytes) -> Image.Image:
    header = open_header(blob)
    swap_bytes(header)
    return upright(header)


def open_header(blob: bytes) -> ImageFile:
    """Read the header of one encoded image; its pixels are not decoded.

    Raises:
        ValueError: it is empty, is no image of a kind that is read, its header is damaged, or its size is too small or too large.
    """
    if isinstance(blob, NoContent):
        raise ValueError(blob.reason)
    if not blob:
        raise ValueError(f"no content: an empty file, none at all, one that may not be read, or over {MAX_BYTES:,} bytes")
    kind = kind_of(blob[:START])
    if kind is None:
        raise ValueError(what_else(blob[:START]) or f"not an image of a kind that is read: {READ}")
    try:
        image = kind.reader(io.BytesIO(blob))
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


def upright(image: Image.Image) -> Image.Image:
    """Return an image rotated and mirrored as its EXIF data say; damaged EXIF data are ignored, and the picture is not refused."""
    image.load()
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # damaged EXIF data: any error
        return image
    return ImageOps.exif_transpose(image) if turned else image


def read_square(file: Path, image_size: int) -> Tensor:
    """Return the pixels uint8 [3, H, W] of an image file of exactly ``image_size`` pixels a side.

    Raises:
        ValueError: it is over :data:`MAX_BYTES`, no image, or of another size; both are checked before pixels are decoded.
    """
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES:,} bytes")
    blob = file.read_bytes()
    width, height = open_header(blob).size
    if (width, height) != (image_size, image_size):
        raise ValueError(f"{width} x {height} pixels, where the manifest says {image_size} x {image_size}")
    return torch.from_numpy(np.array(open_upright(blob))).permute(2, 0, 1)


def require_side(image_size: int) -> int:
    """Return the side of images in pixels, unless it is too small (``SettingsError``)."""
    if image_size < MIN_SIDE:
        raise SettingsError("The image size is too small.", found=f"{image_size}", hint=f"use at least {MIN_SIDE} pixels.")
    return image_size


def to_pixels(image: Image.Image, image_size: int, fit: Fit = "crop") -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return pixels uint8 [H, W, 3] of side ``image_size``, resized (bicubic).

    ``crop`` resizes the shorter side to it and keeps the centre; ``pad`` resizes the longer side to it and adds black; ``stretch`` resizes
    each side to it.
    """
    square = (image_size, image_size)
    if image.size == square:
        return np.array(image)
    if fit == "stretch":
        return np.array(image.resize(square, Image.Resampling.BICUBIC))
    return np.array((ImageOps.fit if fit == "crop" else ImageOps.pad)(image, square, method=Image.Resampling.BICUBIC))


def pixels_at(pixels: Tensor, image_size: int) -> Tensor:
    """Return pixels uint8 [N, 3, H, W] of side ``image_size``, each image by :func:`to_pixels`, as files are; of that side as they are."""
    if pixels.shape[-1] == image_size:
        return pixels
    resized = (to_pixels(Image.fromarray(image), image_size) for image in pixels.permute(0, 2, 3, 1).numpy())
    return torch.from_numpy(np.stack(list(resized))).permute(0, 3, 1, 2)


def to_unit_range(pixels: Tensor) -> Tensor:
    """Return images [N, 3, H, W] in [-1, 1] of ``pixels`` uint8 [N, 3, H, W]."""
    return pixels.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Return images uint8 [N, 3, H, W] of float images in [-1, 1], rounded to the nearest level."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def resized(images: Tensor, side: int) -> Tensor:
    """Return float images [N, 3, H, W] at another side H = W, bilinear and antialiased; images of that side as they are."""
    return images if images.shape[-1] == side else F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def png_of(image: Image.Image) -> bytes:
    """Return an image, encoded as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def png_of_pixels(pixels: Tensor) -> bytes:
    """Return pixels uint8 [3, H, W], encoded as PNG."""
    return png_of(Image.fromarray(pixels.permute(1, 2, 0).numpy()))


def is_sound_png(blob: bytes) -> bool:
    """Return whether a PNG file is whole, and every chunk fits its checksum; Pillow checks those of pixels only in ``verify``."""
    try:
        with Image.open(io.BytesIO(blob), formats=["PNG"]) as image:
            image.verify()
    except Exception:  # Pillow's decoders raise from many unrelated trees
        return False
    return blob.endswith(_PNG_END)
