"""The distilled set on disk: images by class, a manifest, class statistics, a data-set card and a contact sheet.

    OUT/train/<class folder>/<index>.png     the images
    OUT/manifest.json                        class name -> label, conditioning id and folder; settings; where everything came from
    OUT/statistics.safetensors               mean and std [C, D] (float32), count [C], rows in the manifest's order of classes;
                                             of classes of m modes [C, m, D] and [C, m]
    OUT/contact-sheet.png, OUT/README.md     for people

A set appears whole or not at all: it is built as ``OUT.partial``, where a finished class folder is never made again.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d3hr.checksums import verify
from d3hr.class_folders import class_folders
from d3hr.contact_sheet import contact_sheet
from d3hr.data import ImageData, load_images
from d3hr.decoding import MAX_BYTES, open_header, open_upright
from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.statistics_file import StatisticsDtype, read_mixtures, require_size, write_mixtures
from d3hr.errors import DistilledSetError
from d3hr.files import write_bytes, write_json
from d3hr.manifest import ClassEntry, Manifest, Sample, read_manifest, require_inside
from d3hr.prior.conditioning import Conditioning
from d3hr.progress import SILENT, Progress
from d3hr.set_card import set_card
from d3hr.staging import StagedFolder, remove

if TYPE_CHECKING:
    from d3hr.prior.model import Prior

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""The last chunk of every PNG file, with its checksum, which Pillow does not look at."""


MOST_VALUES_A_PIXEL = 16
"""Most dimensions of a latent that statistics may have for each pixel of the set's images; autoencoders give fewer than 1."""


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set on disk; its images are read when first asked for."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: str | Path) -> DistilledSet:
        """Open a finished set.

        Raises:
            DistilledSetError: the folder is not one, its manifest contradicts itself, an image is missing, or a file is a link out of it.
            DamagedFile: a file is not what was written.
        """
        folder = Path(path)
        distilled = cls(folder, read_manifest(folder))
        missing = [image for entry in distilled.manifest.classes for image in distilled._missing(entry)]
        if missing:
            raise DistilledSetError(f"{len(missing)} class(es) of {folder} lack images.", found=missing[0], do="make the set again.")
        classes, modes = len(distilled.class_names), distilled.manifest.modes
        require_size(distilled._statistics_file, classes=classes, modes=modes, most=distilled._most_dimensions)
        verify(folder)  # last: only now are there no links to follow, and no more to read than a set holds
        return distilled

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""
        return tuple(entry.name for entry in self.manifest.classes)

    @cached_property
    def images(self) -> Tensor:
        """Images uint8 [N, 3, H, W], class by class.

        Raises:
            DistilledSetError: only statistics are kept.
        """
        self.require_images()
        return torch.cat([self.of_class(name) for name in self.class_names])

    @cached_property
    def labels(self) -> Tensor:
        """Labels int64 [N] of :attr:`images`."""
        return torch.repeat_interleave(
            torch.tensor([entry.label for entry in self.manifest.classes]), torch.tensor([entry.images for entry in self.manifest.classes])
        )

    @property
    def statistics(self) -> dict[str, ClassGaussian]:
        """The Gaussian of each class, of all its modes together; empty for a set that was made without.

        Raises:
            DistilledSetError: as :attr:`mixtures`.
        """
        return {name: mixture.whole for name, mixture in self.mixtures.items()}

    @cached_property
    def mixtures(self) -> dict[str, ClassMixture]:
        """The Gaussian of each mode of each class; empty for a set that was made without.

        Raises:
            DistilledSetError: the file is damaged, or does not fit the manifest.
        """
        file = self._statistics_file
        if not file.is_file():
            return {}
        manifest = self.manifest
        if not manifest.tells_statistics:
            raise DistilledSetError(
                f"{file} does not fit the manifest.",
                found=f"statistics of a set of method {manifest.method!r}, without how, or of which prior, they were made",
                do="make the set again.",
            )
        mixtures = read_mixtures(file, classes=len(self.class_names), modes=manifest.modes, most=self._most_dimensions)
        return dict(zip(self.class_names, mixtures, strict=True))

    def require_images(self) -> None:
        """Raise :class:`DistilledSetError` if only statistics are kept."""
        if self.manifest.ipc == 0:
            raise DistilledSetError(
                f"{self.path} has no images.", found="statistics alone", do=f"make some: 'd3hr expand {self.path} --ipc 10 --out SET'."
            )

    def require_prior(self, prior: Prior) -> None:
        """Refuse a prior whose classes, latents or images are not those of the manifest and the statistics.

        Raises:
            DistilledSetError: they are others.
        """
        self.manifest.conditioning_in(prior.class_names)
        ours = (self.manifest.image_size, next(iter(self.mixtures.values())).dimensions)
        theirs = (prior.image_size, torch.Size(prior.latent_shape).numel())
        if ours != theirs:
            raise DistilledSetError(
                f"{self.path} does not fit the prior it names.",
                found="images of {} px and {} dimensions, where the prior has {} px and {}".format(*ours, *theirs),
                do="make the set again.",
            )

    def of_class(self, name: str) -> Tensor:
        """Return the images uint8 [K, 3, H, W] of one class.

        Raises:
            DistilledSetError: an image is damaged or not of the manifest's size; the size is checked before pixels are decoded.
        """
        entry = self.manifest.classes[self.class_names.index(name)]
        pixels = [self._pixels(file) for file in self._files(entry)]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def expand(self, prior: Prior, ipc: int, out: str | Path, *, progress: Progress = SILENT, **changes: Any) -> DistilledSet:
        """Make a set of another IPC from the stored statistics; no real image is needed. See :func:`d3hr.distillation.pipeline.expand`."""
        from d3hr.distillation.pipeline import expand

        return expand(self, prior, out, ipc=ipc, progress=progress, **changes)

    def _files(self, entry: ClassEntry) -> list[Path]:
        return [self.path / "train" / entry.folder / f"{index:05d}.png" for index in range(entry.images)]

    @property
    def _statistics_file(self) -> Path:
        return require_inside(self.path, self.path / "statistics.safetensors")

    @property
    def _most_dimensions(self) -> int:
        return MOST_VALUES_A_PIXEL * self.manifest.image_size**2

    def _missing(self, entry: ClassEntry) -> list[str]:
        """Return which of a class's images is missing, if any; as many files are looked at as lie there, whatever the manifest says."""
        if entry.images == 0:
            return []
        folder = require_inside(self.path, self.path / "train" / entry.folder)
        try:
            with os.scandir(folder) as entries:
                there = {file.name: file.is_symlink() for file in entries if file.is_file()}
        except FileNotFoundError:
            there = {}
        for name in (name for name, is_link in there.items() if is_link):
            require_inside(self.path, folder / name)
        for index in range(entry.images):  # ends at the first that is missing
            if f"{index:05d}.png" not in there:
                return [f"no {folder / f'{index:05d}.png'}, of {entry.images} images"]
        return []

    def _pixels(self, file: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
        side = self.manifest.image_size
        try:
            if file.stat().st_size > MAX_BYTES:
                raise ValueError(f"over {MAX_BYTES:,} bytes")
            blob = file.read_bytes()
            if (found := open_header(blob).size) != (side, side):
                raise ValueError(f"{found[0]} x {found[1]} pixels, where the manifest says {side} x {side}")
            return np.asarray(open_upright(blob))
        except (ValueError, OSError) as error:
            raise DistilledSetError(f"{file} is damaged.", found=str(error), do="make the set again.") from error


def open_set(path: str | Path) -> DistilledSet | ImageData:
    """Open a distilled set: one of d3hr, or any image source that another tool left, such as a folder of class folders.

    Raises:
        DistilledSetError: the folder is an unfinished or damaged set of d3hr.
        DataError: it is neither.
    """
    folder = Path(path)
    if (folder / "manifest.json").is_file() or folder.with_name(folder.name + ".partial").is_dir():
        return DistilledSet.load(folder)
    return load_images(path)


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
            "data": self.data.get("fingerprint"),
            "prior": self.prior.get("fingerprint"),
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
            data=dict(self.data),
            prior=dict(self.prior),
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
) -> DistilledSet:
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
    stage.publish(without=temporary)
    return DistilledSet.load(stage.out)


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
    drawn = DistilledSet(folder, manifest)
    rows = {entry.name: drawn.of_class(entry.name) for entry in manifest.classes[:100]}
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
        "prior": int(manifest.prior.get("bytes", 0)),
    }


def to_uint8(images: Tensor) -> Tensor:
    """Return images uint8 [N, 3, H, W] of float images in [-1, 1], rounded to the nearest level."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to("cpu", torch.uint8)


def _write_class(folder: Path, images: Tensor) -> None:
    partial = folder.with_name(f".{folder.name}.part")
    remove(partial)
    partial.mkdir()
    for index, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "png")
        write_bytes(partial / f"{index:05d}.png", buffer.getvalue())
    partial.replace(folder)
