"""What people see first of a distilled set: its data-set card, ``README.md``, which the Hugging Face Hub shows, and its contact sheet."""

import html
import json
import math
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from d3hr.data.codec import png_of
from d3hr.sets.entries import ClassEntry
from d3hr.sets.manifest import Manifest
from d3hr.sets.packing import packed_in_words

MAX_CLASSES = 100
"""Most classes of a contact sheet, one per row."""
MAX_COLUMNS = 20
"""Most images of a class."""
_CELL = 64
"""Images are enlarged to the largest multiple of their side up to this, in pixels; larger ones are shown as they are."""
_GAP = 4
_MAX_NAME_WIDTH = 180


def set_card(manifest: Manifest) -> str:
    """Return the text of ``README.md`` for a distilled set."""
    source = _markdown(manifest.data.source or "the prior alone")
    where = ", in the memory of a program" if manifest.data.in_memory else ""
    licence = f" ({_markdown(manifest.prior.licence)})" if manifest.prior.licence else ""
    licences = "The licences of the source images" + (f" and of the prior{licence}" if manifest.prior.fingerprint else "")
    front: dict[str, object] = {"tags": ["dataset-distillation", manifest.method]}
    if manifest.ipc:
        front["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "train/**"}]}]
    real = f"**It {manifest.about_real_images}.** Their sources are in `manifest.json`." if manifest.about_real_images else ""
    contents = "Mean and standard deviation, in the noise space of a diffusion prior,"
    if manifest.ipc:
        packed = f" ({packed_in_words(manifest.pack)})" if manifest.pack > 1 else ""
        contents = f"{manifest.ipc} image(s){packed} for each"
    rows = [
        f"| {entry.label} | {_markdown(entry.name)} | {_markdown(entry.folder)} | {entry.images} | {_made_from(entry)} |"
        for entry in manifest.classes
    ]
    return "\n".join(
        [
            "---",
            json.dumps(front, indent=2),
            "---",
            "# Distilled image set",
            "",
            f"{contents} of {len(manifest.classes)} classes, {manifest.image_size} x {manifest.image_size} pixels, "
            f"made by d3hr {manifest.versions['d3hr']}, method `{manifest.method}`, from `{source}`{where}.",
            "",
            *([real, ""] if real else []),
            *_how_to_open(manifest),
            f"`manifest.json` maps class names to labels and tells every setting. {licences} apply.",
            "",
            "| label | class | folder | images | made from |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _made_from(entry: ClassEntry) -> str:
    if entry.sample:
        return f"{entry.sample.images:,} of {entry.real_images:,}"
    return str(entry.real_images or "")


def _how_to_open(manifest: Manifest) -> list[str]:
    if not manifest.ipc:
        return ["`d3hr expand` makes any number of images of each class from these statistics and the prior."]
    return [
        "![contact sheet](contact-sheet.png)",
        "",
        'Open it with `datasets.load_dataset("imagefolder", data_dir=...)` or any loader of class folders under `train/`.',
    ]


def _markdown(text: str) -> str:
    return html.escape(" ".join(text.split())).replace("|", "&#124;").replace("`", "&#96;").replace("[", "&#91;")


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
