"""What people see first of a distilled set: its data-set card, ``README.md``, which the Hugging Face Hub shows."""

import html
import json
import re

from d3hr.sets.entries import ClassEntry
from d3hr.sets.manifest import Manifest
from d3hr.sets.packing import packed_in_words


def set_card(manifest: Manifest) -> str:
    """Return the text of ``README.md`` for a distilled set."""
    source = _markdown(manifest.data.source or "the prior alone")
    where = ", in the memory of a program" if manifest.data.in_memory else ""
    licence = f" ({_markdown(manifest.prior.licence)})" if manifest.prior.licence else ""
    licences = "The licences of the source images" + (f" and of the prior{licence}" if manifest.prior.fingerprint else "")
    front: dict[str, object] = {
        "license": "other",
        "license_name": _licence_name(manifest),
        "task_categories": ["image-classification"],
        "tags": ["dataset-distillation", manifest.method],
    }
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


def _licence_name(manifest: Manifest) -> str:
    """Return the name that the Hub shows for the licence: lower case, without spaces."""
    prior = f"-and-of-the-prior-{manifest.prior.licence or 'unknown'}" if manifest.prior.fingerprint else ""
    return re.sub(r"[^a-z0-9.-]+", "-", f"of-the-source-images{prior}".lower())


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
