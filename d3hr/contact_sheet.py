"""Draws one picture of images by class: a row for each class, its name at the left."""

from __future__ import annotations

import math
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from d3hr.encoding import png_of

MAX_CLASSES = 100
MAX_COLUMNS = 20
_CELL = 64
_GAP = 4
_MAX_NAME_WIDTH = 180


def contact_sheet(rows: Mapping[str, Tensor]) -> bytes:
    """Return a PNG of the first images of each class.

    Args:
        rows: uint8 [K, 3, H, W] for each class name; the first 100 classes and 20 images are drawn.
    """
    shown = list(rows.items())[:MAX_CLASSES]
    side = max(images.shape[-1] for _, images in shown)
    cell = side * max(1, _CELL // side)
    columns = min(MAX_COLUMNS, max(len(images) for _, images in shown))
    step = cell + _GAP
    font = ImageFont.load_default(size=15)
    names = [_cut(name, font) for name, _ in shown]
    left = 20 + math.ceil(max(font.getlength(name) for name in names))
    sheet = Image.new("RGB", (left + columns * step + _GAP, len(shown) * step + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (_, images) in enumerate(shown):
        top = _GAP + row * step
        draw.text((10, top + cell / 2), names[row], fill="black", font=font, anchor="lm")
        for column, image in enumerate(images[:columns]):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + column * step, top))
    return png_of(sheet)


def _cut(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    line = " ".join(name.split())
    while font.getlength(line) > _MAX_NAME_WIDTH - 20:
        line = line[:-2] + "…"
    return line
