"""Pictures into PNG files."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor


def png_of(image: Image.Image) -> bytes:
    """Return an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def png_of_pixels(pixels: Tensor) -> bytes:
    """Return pixels uint8 [3, H, W] as PNG."""
    return png_of(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
