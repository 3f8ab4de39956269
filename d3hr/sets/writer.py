"""Writes a distilled set: images by class, manifest, statistics, data-set card and contact sheet (see :mod:`d3hr.sets.distilled_set`).

A set appears whole or not at all: it is built as ``OUT.partial``, where a finished class folder is never made again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from d3hr.data.codec import png_of_pixels, read_square, to_uint8
from d3hr.data.dataset import DataRecord
from d3hr.distillation.mixture import ClassMixture
from d3hr.fileio.atomic import write_bytes, write_json
from d3hr.fileio.names import class_folders
from d3hr.fileio.staging import StagedFolder, remove
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import PriorRecord
from d3hr.progress import SILENT, Progress
from d3hr.sets.card import MAX_CLASSES, contact_sheet, set_card
from d3hr.sets.manifest import ClassEntry, Manifest, Sample
from d3hr.sets.statistics import StatisticsDtype, write_mixtures

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG file, with its checksum, which Pillow does not look at."""


@dataclass(frozen=True)
class Origin:
    """What a set is made from and how, before it is made."""

    method: str
    class_names: Sequence[str]
    ipc: int
    image_size: int
    settings: Mapping[str, Any]
    data: DataRecord = field(default_factory=DataRecord)
    prior: PriorRecord = field(default_factory=PriorRecord)
    real_counts: Mapping[str, int] = field(default_factory=dict)
    conditioning: Sequence[Conditioning] | None = None
    samples: Mapping[str, Sample] | None = None

    def key(self) -> dict[str, Any]:
        """Return what decides the set's pixels."""
        return {
            "kind": "distilled set",
            "method": self.method,
            "classes": list(self.class_names),
            "ipc": self.ipc,
            "image_size": self.image_size,
            "settings": dict(self.settings),
            "data": self.data.fingerprint,
            "prior": self.prior.fingerprint,
            "conditioning": [match.conditioning_id for match in self.conditioning or ()],
        }

    def manifest(self) -> Manifest:
        """Return the manifest of the finished set."""
        folders = class_folders(self.class_names)
        matches: Sequence[Conditioning | None] = self.conditioning or [None] * len(self.class_names)
        return Manifest(
            method=self.method,
            image_size=self.image_size,
            ipc=self.ipc,
            classes=tuple(
                ClassEntry(
                    name=name,
                    label=label,
                    folder=folders[name],
                    images=self.ipc,
                    real_images=self.real_counts.get(name),
                    sample=(self.samples or {}).get(name),
                    conditioning_id=match.conditioning_id if match else None,
                    prior_class=match.prior_class if match else None,
                )
                for label, (name, match) in enumerate(zip(self.class_names, matches, strict=True))
            ),
            settings=dict(self.settings),
            data=self.data,
            prior=self.prior,
            versions={name: version(name) for name in ("d3hr", "torch", "diffusers")},
        )


def write_set(
    stage: StagedFolder,
    origin: Origin,
    draw: Callable[[Sequence[str]], Iterable[tuple[str, Tensor]]],
    *,
    mixtures: Mapping[str, ClassMixture] | None = None,
    statistics_dtype: StatisticsDtype = "float32",
    temporary: Sequence[str] = (),
    progress: Progress = SILENT,
) -> None:
    """Complete a staged set and make it appear; classes that an earlier run finished are kept.

    Args:
        stage: the folder under construction.
        origin: what the set is; an IPC of 0 keeps the statistics alone.
        draw: gives the images float [K, 3, H, W] in [-1, 1] of each class that it is asked for, in any order.
        mixtures: the statistics to store beside the images, in the order of the classes.
        statistics_dtype: precision of the statistics on disk.
        temporary: pieces in the staged folder that the finished set does not need.
        progress: where to report.
    """
    manifest = origin.manifest()
    if manifest.ipc > 0:
        _write_images(stage.path, manifest, draw, progress)
    if mixtures:
        write_mixtures(stage.path / "statistics.safetensors", mixtures.values(), statistics_dtype)
    manifest = manifest.model_copy(update={"storage": _bytes(stage.path, manifest)})
    write_bytes(stage.path / "README.md", set_card(manifest).encode())
    write_json(stage.path / "manifest.json", manifest.model_dump(mode="json"))
    stage.commit(exclude=temporary)


def _write_images(
    folder: Path, manifest: Manifest, draw: Callable[[Sequence[str]], Iterable[tuple[str, Tensor]]], progress: Progress
) -> None:
    train = folder / "train"
    train.mkdir(exist_ok=True)
    folders = {entry.name: train / entry.folder for entry in manifest.classes}
    missing = [entry.name for entry in manifest.classes if not _is_kept(folders[entry.name], entry.images, progress)]
    with progress.bar("drawing classes", len(folders)) as bar:
        bar.update(len(folders) - len(missing))
        for done, (name, images) in enumerate(draw(missing), start=len(folders) - len(missing) + 1):
            _write_class(folders[name], to_uint8(images))
            bar.update(done)
    shown = {entry.name: entry.files(folder) for entry in manifest.classes[:MAX_CLASSES]}
    rows = {name: torch.stack([read_square(file, manifest.image_size) for file in files]) for name, files in shown.items()}
    write_bytes(folder / "contact-sheet.png", contact_sheet(rows))


def _is_kept(folder: Path, count: int, progress: Progress) -> bool:
    """Return whether an earlier run left the images of a class, whole and nothing else; a folder of anything else is removed."""
    if not folder.is_dir():
        return False
    expected = {f"{index:05d}.png" for index in range(count)}
    if {path.name for path in folder.iterdir()} == expected and all(_is_sound(folder / name) for name in expected):
        return True
    progress.say(f"{folder} is damaged: it is made again")
    remove(folder)
    return False


def _is_sound(image: Path) -> bool:
    """Return whether every chunk of a PNG file has its checksum; Pillow checks those of pixels only when asked to."""
    content = image.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            opened.verify()
    except Exception:  # whatever a decoder makes of random bytes
        return False
    return content.endswith(_PNG_END)


def _bytes(folder: Path, manifest: Manifest) -> dict[str, int]:
    """Return the bytes of what a set needs; hard labels are folder names and need none."""
    statistics = folder / "statistics.safetensors"
    return {
        "images": sum(image.stat().st_size for image in folder.glob("train/*/*.png")),
        "statistics": statistics.stat().st_size if statistics.is_file() else 0,
        "soft_labels": 0,
        "prior": manifest.prior.bytes,
    }


def _write_class(folder: Path, images: Tensor) -> None:
    partial = folder.with_name(f".{folder.name}.part")
    remove(partial)
    partial.mkdir()
    for index, image in enumerate(images):
        write_bytes(partial / f"{index:05d}.png", png_of_pixels(image))
    partial.replace(folder)
