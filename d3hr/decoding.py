"""Encoded images into upright RGB pixels, within limits that are checked before anything is decoded."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Largest width x height that is decoded (Pillow's own limit against decompression bombs, here an error)."""
MIN_SIDE = 4
"""Smallest side, in pixels, that counts as a picture."""


def open_upright(blob: bytes) -> Image.Image:
    """Decode one encoded image to RGB: EXIF rotation applied, transparency laid on white, 16-bit grey scaled to 8 bits.

    Raises:
        ValueError: the image is damaged, too small or too large; the size is checked before pixels are decoded.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(blob))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels, over the limit of {MAX_PIXELS:,}")
        if min(width, height) < MIN_SIDE:
            raise ValueError(f"{width} x {height} pixels, under {MIN_SIDE} a side")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16") or image.mode == "I":
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"too many pixels: {error}") from error
    except UnidentifiedImageError:
        raise ValueError("not a PNG, JPEG or WebP image") from None
    except (OSError, SyntaxError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"damaged: {error}") from error


def to_pixels(image: Image.Image, image_size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return uint8 [H, W, 3] of side ``image_size``: the shorter side scaled to it, the centre kept."""
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return np.array(image)
