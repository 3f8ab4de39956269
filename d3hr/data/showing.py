"""Pictures of named classes, shown to people: a contact sheet, and what a notebook shows of a data set."""

import html
import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from d3hr.data.codec import pixels_at, png_of
from d3hr.formatting import data_uri

MAX_CLASSES = 100
"""Most classes of a contact sheet, one per row."""
MAX_COLUMNS = 20
"""Most images of a class."""
_CELL = 64
"""Images are enlarged to the largest multiple of their side up to this, in pixels; larger ones are shown as they are."""
_GAP = 4
_MAX_NAME_WIDTH = 180
SHOWN_CLASSES = 10
"""Most classes that a notebook shows."""
SHOWN_IMAGES = 8
"""Most images of each of them."""
_THUMBNAIL = 96
"""Largest side of an image in a notebook, in pixels: the page contains it."""


def contact_sheet(rows: Mapping[str, Tensor]) -> bytes:
    """Return a PNG of the first :data:`MAX_COLUMNS` images, uint8 [K, 3, H, W], of each of the first :data:`MAX_CLASSES` classes."""
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


def notebook_page(title: str, lines: Sequence[str], rows: Mapping[str, Tensor], *, classes: int) -> str:
    """Return the HTML that a notebook shows of images: a title, lines about them, and a contact sheet.

    Args:
        title: text; everything is escaped.
        lines: text.
        rows: some images, uint8 [K, 3, H, W], of some classes, which are shown small; none gives no contact sheet.
        classes: how many classes there are.
    """
    small = {name: pixels_at(images, min(images.shape[-1], _THUMBNAIL)) for name, images in rows.items()}
    sheet = ""
    if small:
        lines = [*lines, f"The first {len(small)} of {classes} classes:"] if len(small) < classes else lines
        sheet = f'<img style="max-width: 100%" alt="Images of {html.escape(", ".join(small))}" src="{data_uri(contact_sheet(small))}">'
    text = "<br>".join(html.escape(line) for line in lines)
    return f"<div><p><strong>{html.escape(title)}</strong><br>{text}</p>{sheet}</div>"
