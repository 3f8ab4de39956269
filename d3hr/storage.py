"""The distilled set on disk: images by class, a manifest, class statistics, a data-set card and a contact sheet.

    OUT/train/<class folder>/<index>.png     the images
    OUT/manifest.json                        class name -> label, conditioning id and folder; settings; where everything came from
    OUT/statistics.safetensors               mean and std [C, D] (float32), count [C], rows in the manifest's order of classes
    OUT/contact-sheet.png, OUT/README.md     for people

A set appears whole or not at all: it is built as ``OUT.partial``, where a finished class folder is never made again.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from d3hr.class_folders import class_folders
from d3hr.contact_sheet import contact_sheet
from d3hr.distillation.matching import ClassGaussian
from d3hr.errors import DistilledSetError
from d3hr.progress import SILENT, Progress
from d3hr.staging import StagedFolder, write_bytes, write_json, write_tensors

if TYPE_CHECKING:
    from d3hr.prior.model import Prior


class ClassEntry(BaseModel):
    """One class of a distilled set."""

    model_config = ConfigDict(frozen=True)

    name: str
    label: int
    """Position of the class in the set's order."""
    folder: str
    """Folder under ``train``."""
    images: int
    """Distilled images."""
    real_images: int | None
    """Real images the class was made from."""
    conditioning_id: int | None
    """Row of the prior's label table."""


class Manifest(BaseModel):
    """What a distilled set is and where it came from."""

    model_config = ConfigDict(frozen=True)

    format: str = "d3hr-set-1"
    method: str
    """``d3hr``, or the name of a baseline."""
    image_size: int
    """Side H = W, in pixels."""
    ipc: int
    """Images per class."""
    classes: tuple[ClassEntry, ...]
    settings: dict[str, Any]
    data: dict[str, Any]
    """Source, split, fingerprint and skipped files of the real images."""
    prior: dict[str, Any]
    """Source and fingerprint of the diffusion prior."""
    versions: dict[str, str]


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set on disk; its images are read when first asked for."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: str | Path) -> DistilledSet:
        """Open a finished set.

        Raises:
            DistilledSetError: the folder is not one, or an image is missing.
        """
        folder = Path(path)
        file = folder / "manifest.json"
        if not file.is_file():
            partial = folder.with_name(folder.name + ".partial")
            raise DistilledSetError(
                f"{folder} is not a distilled set.",
                found=f"an unfinished run in {partial}" if partial.is_dir() else "no manifest.json in it",
                do="repeat the command that made it." if partial.is_dir() else "give a folder written by 'd3hr distill'.",
            )
        try:
            manifest = Manifest.model_validate_json(file.read_text(encoding="utf-8"))
        except (ValidationError, ValueError) as error:
            raise DistilledSetError(f"{file} is damaged.", found=str(error).splitlines()[0], do="make the set again.") from error
        distilled = cls(folder, manifest)
        missing = [str(image) for entry in manifest.classes for image in distilled._files(entry) if not image.is_file()]
        if missing:
            raise DistilledSetError(f"{len(missing)} image(s) of {folder} are missing.", found=missing[0], do="make the set again.")
        return distilled

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""
        return tuple(entry.name for entry in self.manifest.classes)

    @cached_property
    def images(self) -> Tensor:
        """Images uint8 [N, 3, H, W], class by class."""
        return torch.cat([self.of_class(name) for name in self.class_names])

    @cached_property
    def labels(self) -> Tensor:
        """Labels int64 [N] of :attr:`images`."""
        return torch.repeat_interleave(
            torch.tensor([entry.label for entry in self.manifest.classes]), torch.tensor([entry.images for entry in self.manifest.classes])
        )

    @cached_property
    def statistics(self) -> dict[str, ClassGaussian]:
        """The Gaussian of each class; empty for a set that was made without."""
        file = self.path / "statistics.safetensors"
        if not file.is_file():
            return {}
        return dict(zip(self.class_names, read_gaussians(file), strict=True))

    def of_class(self, name: str) -> Tensor:
        """Return the images uint8 [K, 3, H, W] of one class."""
        entry = self.manifest.classes[self.class_names.index(name)]
        pixels = [np.asarray(Image.open(file).convert("RGB")) for file in self._files(entry)]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def expand(self, prior: Prior, ipc: int, out: str | Path, *, progress: Progress = SILENT) -> DistilledSet:
        """Make a set of another IPC from the stored statistics; no real image is needed. See :func:`d3hr.distillation.pipeline.expand`."""
        from d3hr.distillation.pipeline import expand

        return expand(self, prior, out, ipc=ipc, progress=progress)

    def _files(self, entry: ClassEntry) -> list[Path]:
        return [self.path / "train" / entry.folder / f"{index:05d}.png" for index in range(entry.images)]


@dataclass(frozen=True)
class Origin:
    """What a set is made from and how, before it is made."""

    method: str
    class_names: Sequence[str]
    ipc: int
    image_size: int
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    prior: Mapping[str, Any]
    real_counts: Mapping[str, int]
    conditioning_ids: Sequence[int] | None = None

    def key(self) -> dict[str, Any]:
        """Return what decides the set's pixels."""
        return {
            "kind": "distilled set",
            "method": self.method,
            "classes": list(self.class_names),
            "ipc": self.ipc,
            "image_size": self.image_size,
            "settings": dict(self.settings),
            "data": self.data.get("fingerprint"),
            "prior": self.prior.get("fingerprint"),
        }

    def manifest(self) -> Manifest:
        """Return the manifest of the finished set."""
        folders = class_folders(self.class_names)
        ids: Sequence[int | None] = self.conditioning_ids or [None] * len(self.class_names)
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
                    conditioning_id=conditioning_id,
                )
                for label, (name, conditioning_id) in enumerate(zip(self.class_names, ids, strict=True))
            ),
            settings=dict(self.settings),
            data=dict(self.data),
            prior=dict(self.prior),
            versions={name: version(name) for name in ("d3hr", "torch", "diffusers")},
        )


def write_set(
    stage: StagedFolder,
    origin: Origin,
    images_of: Callable[[str], Tensor],
    *,
    gaussians: Mapping[str, ClassGaussian] | None = None,
    temporary: Sequence[str] = (),
    progress: Progress = SILENT,
) -> DistilledSet:
    """Complete a staged set and make it appear; classes that an earlier run finished are kept.

    Args:
        stage: the folder under construction.
        origin: what the set is.
        images_of: gives the images of one class, float [K, 3, H, W] in [-1, 1].
        gaussians: the statistics to store beside the images.
        temporary: pieces in the staged folder that the finished set does not need.
        progress: where to report.
    """
    manifest = origin.manifest()
    train = stage.path / "train"
    train.mkdir(exist_ok=True)
    with progress.bar("drawing classes", len(manifest.classes)) as bar:
        for done, entry in enumerate(manifest.classes, start=1):
            if not (train / entry.folder).is_dir():
                _write_class(train / entry.folder, to_uint8(images_of(entry.name)))
            bar.update(done)
    if gaussians:
        write_gaussians(stage.path / "statistics.safetensors", [gaussians[name] for name in origin.class_names])
    finished = DistilledSet(stage.path, manifest)
    rows = {entry.name: finished.of_class(entry.name) for entry in manifest.classes[:100]}
    write_bytes(stage.path / "contact-sheet.png", contact_sheet(rows))
    write_bytes(stage.path / "README.md", _card(manifest).encode())
    write_json(stage.path / "manifest.json", manifest.model_dump(mode="json"))
    stage.publish(without=temporary)
    return DistilledSet.load(stage.out)


def to_uint8(images: Tensor) -> Tensor:
    """Return images uint8 [N, 3, H, W] of float images in [-1, 1], rounded to the nearest level."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def write_gaussians(path: Path, gaussians: Sequence[ClassGaussian]) -> None:
    """Write Gaussians to one safetensors file, in float32."""
    tensors = {
        "mean": torch.stack([gaussian.mean for gaussian in gaussians]).float(),
        "std": torch.stack([gaussian.std for gaussian in gaussians]).float(),
        "count": torch.tensor([gaussian.count for gaussian in gaussians]),
    }
    write_tensors(path, tensors)


def read_gaussians(path: Path) -> list[ClassGaussian]:
    """Read what :func:`write_gaussians` wrote."""
    tensors = load_file(path)
    rows = zip(tensors["mean"].double(), tensors["std"].double(), tensors["count"].tolist(), strict=True)
    return [ClassGaussian(mean, std, count) for mean, std, count in rows]


def _write_class(folder: Path, images: Tensor) -> None:
    partial = folder.with_name(f".{folder.name}.part")
    partial.mkdir(exist_ok=True)
    for index, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "png")
        write_bytes(partial / f"{index:05d}.png", buffer.getvalue())
    partial.replace(folder)


def _card(manifest: Manifest) -> str:
    source = _markdown(str(manifest.data.get("source", "the prior alone")))
    front = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train/**"}]}],
        "tags": ["dataset-distillation", manifest.method],
    }
    rows = [
        f"| {entry.label} | {_markdown(entry.name)} | {_markdown(entry.folder)} | {entry.images} | {entry.real_images or ''} |"
        for entry in manifest.classes
    ]
    return "\n".join(
        [
            "---",
            json.dumps(front, indent=2),
            "---",
            "# Distilled image set",
            "",
            f"{manifest.ipc} image(s) for each of {len(manifest.classes)} classes, {manifest.image_size} x {manifest.image_size} pixels, "
            f"made by d3hr {manifest.versions['d3hr']}, method `{manifest.method}`, from `{source}`.",
            "",
            "![contact sheet](contact-sheet.png)",
            "",
            'Open it with `datasets.load_dataset("imagefolder", data_dir=...)` or any loader of class folders under `train/`.',
            "`manifest.json` maps class names to labels and tells every setting. The licences of the source images and of the prior apply.",
            "",
            "| label | class | folder | images | made from |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _markdown(text: str) -> str:
    return html.escape(" ".join(text.split())).replace("|", "&#124;").replace("`", "&#96;").replace("[", "&#91;")
