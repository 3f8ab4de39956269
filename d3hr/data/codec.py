"""Decodes images to upright RGB pixels, within limits that are checked before anything is decoded; converts, resizes and encodes pixels.

Legend: N images, H = W image side.
"""

import io
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn import functional as F

from d3hr.data.depth import FULL, deep_values, is_deep, refusal, stated_bits, swap_bytes, to_eight_bits
from d3hr.data.headers import MAX_BYTES, MIN_SIDE, ORIENTATION, Found, may_be_turned, open_header
from d3hr.errors import SettingsError

Fit = Literal["crop", "pad", "stretch"]
"""What becomes of pictures that are not square."""
_DRAFT = 2
"""Side of a JPEG that is decoded at a fraction of its size, at least, in sides of the picture that it is resized to."""
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG file, with its checksum, which Pillow does not check."""


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
        return image if image.mode == "RGB" else image.convert("RGB")
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


def upright(image: Image.Image) -> Image.Image:
    """Return an image rotated and mirrored as its EXIF data say; damaged EXIF data are ignored, and the picture is not refused."""
    image.load()
    try:
        turned = may_be_turned(image) and image.getexif().get(ORIENTATION, 1) in range(2, 9)
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
    return (pixels.float() / 127.5).sub_(1)


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
