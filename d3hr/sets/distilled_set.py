"""A distilled set on disk: images by class, a manifest, class statistics, a data-set card and a contact sheet.

    OUT/train/<class folder>/<index>.png     the images
    OUT/manifest.json                        class name -> label, conditioning id and folder; settings; where everything came from
    OUT/statistics.safetensors               see :mod:`d3hr.sets.statistics`; rows in the manifest's order of classes
    OUT/contact-sheet.png, OUT/README.md     for people

Sets are written by :mod:`d3hr.sets.writer`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import copyfile
from typing import Any, Unpack

import torch
from torch import Tensor

from d3hr.data.opening import load_images
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.presets import ExpandOptions
from d3hr.errors import DistilledSetError, PriorError, require_class, require_kind
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.checksums import verify
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.model import OPEN_PRIOR, Prior
from d3hr.progress import BY_DEFAULT, Progress
from d3hr.sets.entries import ClassEntry
from d3hr.sets.image_set import ImageSet, require_images
from d3hr.sets.manifest import CHOOSE_AGAIN, read_manifest, require_inside
from d3hr.sets.packing import packed_in_words
from d3hr.sets.sharing import SharedSet
from d3hr.sets.statistics import StoredMixtures, require_size
from d3hr.sets.writer import CONTENTS, write_drawn_set

MAX_VALUES_PER_PIXEL = 16
"""Most dimensions of a latent that statistics may have per pixel of the set's images; autoencoders give fewer than 1."""


@dataclass(frozen=True, repr=False)
class DistilledSet(SharedSet):
    """A distilled set on disk; its images are read at their first use.

    It is a torch ``Dataset``: an index gives ``(image [3, H, W] in [-1, 1], label)``, of a packed set the single pictures in its stored
    images, as students see them. :attr:`images`, :attr:`labels` and :attr:`counts` are those of the stored images.
    """

    @classmethod
    def load(cls, path: str | Path) -> DistilledSet:
        """Open a finished set.

        Raises:
            DistilledSetError: the folder is not a set, its manifest contradicts itself, an image is missing, or a file is a link out of it.
            DamagedFile: the checksum of a file does not fit.
        """
        folder = Path(path)
        distilled = cls(folder, read_manifest(folder))
        missing = [image for entry in distilled.manifest.classes if (image := distilled._missing(entry))]
        if missing:
            found = f"no {missing[0]}, of {distilled.ipc} images"
            raise DistilledSetError(f"{len(missing)} class(es) of {folder} lack images.", found=found, hint="make the set again.")
        require_size(distilled._statistics_file, classes=len(distilled.class_names), **distilled._sizes)
        verify(folder)  # last: by now no links lead out of it, and no file is larger than a set's
        return distilled

    def __reduce__(self) -> tuple[Any, ...]:
        return DistilledSet, (self.path.absolute(), self.manifest)  # other processes read for themselves what they need of it

    def __repr__(self) -> str:
        classes, packed = len(self.class_names), f", {packed_in_words(self.pack)}" if self.pack > 1 else ""
        images = f"{self.ipc} images of each of {classes} classes, {self.image_size} px"
        return f"DistilledSet({self.source!r}, method {self.method}, {images}{packed})"

    @property
    def source(self) -> str:
        """Its folder."""
        return str(self.path)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""
        return self.manifest.class_names

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return {entry.name: entry.images for entry in self.manifest.classes}

    @property
    def ipc(self) -> int:
        """Images per class; 0 where only statistics are kept."""
        return self.manifest.ipc

    @property
    def image_size(self) -> int:
        """Side H = W, in pixels."""
        return self.manifest.image_size

    @property
    def pack(self) -> int:
        """Pictures along each side of a stored image; 1 in a set that is not packed."""
        return self.manifest.pack

    @property
    def method(self) -> str:
        """Name of the method that made the set."""
        return self.manifest.method

    @property
    def seed(self) -> int:
        """Seed that the set was made with."""
        return self.manifest.seed

    @property
    def identity(self) -> dict[str, Any]:
        """The manifest, as JSON values."""
        return self.manifest.model_dump(mode="json")

    @cached_property
    def images(self) -> Tensor:
        """Images uint8 [N, 3, H, W], class by class.

        Raises:
            DistilledSetError: only statistics are kept.
        """
        return self._read()

    @cached_property
    def labels(self) -> Tensor:
        """Labels int64 [N] of :attr:`images`."""
        return torch.repeat_interleave(torch.arange(len(self.class_names)), torch.tensor(list(self.counts.values())))

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return :attr:`images` and :attr:`labels`; images that are read for this are not kept."""
        read = vars(self).get("images")
        return (self._read() if read is None else read), self.labels

    @property
    def statistics(self) -> dict[str, ClassGaussian]:
        """The Gaussian of each class, of all its modes together; empty for a set without statistics.

        Raises:
            DistilledSetError: as :attr:`mixtures`.
        """
        return {name: mixture.pooled for name, mixture in self.mixtures.items()}

    @cached_property
    def mixtures(self) -> Mapping[str, ClassMixture]:
        """The Gaussian of each mode of each class, read from the file at each look-up; empty for a set without statistics.

        Raises:
            DistilledSetError: the file is damaged, or does not fit the manifest.
        """
        file = self._statistics_file
        if not file.is_file():
            return {}
        if not (self.manifest.distill_settings and self.manifest.prior.fingerprint and self.manifest.conditioning):
            raise DistilledSetError(
                f"{file} does not fit the manifest.",
                found=f"statistics of a set of method {self.method!r}, without the settings or the prior that they were made with",
                hint="make the set again.",
            )
        return StoredMixtures(file, self.class_names, **self._sizes)

    def require_statistics(self) -> None:
        """Raise :class:`DistilledSetError` for a set that has no statistics to draw from."""
        if not self.mixtures:
            raise DistilledSetError(
                f"{self.path} has no statistics to expand.",
                found=f"a set of method {self.manifest.method!r}",
                hint=CHOOSE_AGAIN if self.manifest.about_real_images else "give a set written by 'd3hr distill'.",
            )

    def require_prior(self, prior: Prior) -> None:
        """Refuse another prior than the one that the set was made with.

        Raises:
            PriorError: it has another fingerprint.
            DistilledSetError: its classes, latents or images are not those of the manifest and the statistics.
        """
        made_with = self.manifest.prior
        if prior.fingerprint != made_with.fingerprint:
            raise PriorError(
                "This is not the prior that the set was made with; its latents mean something else.",
                found=f"prior {prior.fingerprint[:12]}, {prior.precision}; the set's is {str(made_with.fingerprint)[:12]}, "
                f"{made_with.precision} ({made_with.source})",
                hint="give that prior, in that precision and with the same autoencoder.",
            )
        self.manifest.conditioning_in(prior.class_names)
        ours = (self.manifest.image_size, next(iter(self.mixtures.values())).dimensions)
        theirs = (prior.image_size, torch.Size(prior.latent_shape).numel())
        if ours != theirs:
            raise DistilledSetError(
                f"{self.path} does not fit the prior it names.",
                found="images of {} px and {} dimensions, where the prior has {} px and {}".format(*ours, *theirs),
                hint="make the set again.",
            )

    def of_class(self, class_name: str, count: int | None = None) -> Tensor:
        """Return the first ``count`` images of a class, by default all of them, as uint8 [K, 3, H, W].

        Raises:
            DistilledSetError: an image is damaged or not of the manifest's size; the size is checked before pixels are decoded.
        """
        require_class(self.source, class_name, self.class_names)
        entry = self.manifest.classes[self.class_names.index(class_name)]
        return torch.stack([self._pixels(file) for file in entry.files(self.path)[:count]])

    def expand(
        self,
        prior: Prior,
        ipc: int,
        out: str | Path,
        *,
        execution: Execution = SERIAL,
        memory_budget: int | None = None,
        progress: Progress = BY_DEFAULT,
        **options: Unpack[ExpandOptions],
    ) -> DistilledSet:
        """Make a set of another IPC from the stored statistics; no real image is needed. The same IPC and seed give the same images.

        Args:
            prior: the prior that the set was made with.
            ipc: images per class.
            out: folder to write.
            execution: where the work is done.
            memory_budget: bytes that a search may hold.
            progress: where to report.
            options: settings of grouping and denoising that differ from those of this set, such as ``seed``.

        Raises:
            DistilledSetError: the set has no statistics.
            PriorError: the prior is another one.
            SettingsError: ``ipc`` is out of range, or a change is, or it would need other statistics.
            OutputError: ``out`` holds something else.
        """
        require_kind("prior", prior, Prior, OPEN_PRIOR)
        self.require_statistics()
        self.require_prior(prior)
        settings = self.manifest.settings_of_expansion({**options, "ipc": ipc})
        manifest = self.manifest.changed(settings=settings, ipc=ipc)
        with StagedFolder(out, manifest.key()) as stage, execution.session() as session:
            stage.report(progress)
            if not stage.finished:
                if (contents := require_inside(self.path, self.path / CONTENTS)).is_file():
                    copyfile(contents, stage.path / CONTENTS)
                write_drawn_set(
                    stage, manifest, prior, settings, self.mixtures, execution=session, memory_budget=memory_budget, progress=progress
                )
        return DistilledSet.load(out)

    def _read(self) -> Tensor:
        require_images(self)
        return torch.cat([self.of_class(name) for name in self.class_names])

    @property
    def _statistics_file(self) -> Path:
        return require_inside(self.path, self.path / "statistics.safetensors")

    @property
    def _sizes(self) -> dict[str, int]:
        """Modes and rank of the statistics, by the manifest, and the most dimensions that latents of such images may have."""
        settings, most = self.manifest.distill_settings, MAX_VALUES_PER_PIXEL * self.image_size**2
        modes, rank = (settings.modes, settings.rank) if settings else (1, 0)
        return {"modes": modes, "rank": rank, "most": most}

    def _missing(self, entry: ClassEntry) -> Path | None:
        """Return the first missing image of a class, if any; the time that this takes depends on the files, not on the manifest."""
        if entry.images == 0:
            return None
        folder = require_inside(self.path, self.path / "train" / entry.folder)
        try:
            with os.scandir(folder) as entries:
                is_link = {file.name: file.is_symlink() for file in entries if file.is_file()}
        except FileNotFoundError:
            is_link = {}
        for name in is_link:
            if is_link[name]:
                require_inside(self.path, folder / name)
        names = (f"{index:05d}.png" for index in range(entry.images))
        return next((folder / name for name in names if name not in is_link), None)


def open_set(path: str | Path) -> ImageSet:
    """Open a distilled set: one of d3hr, or any image source that another tool left, such as a folder of class folders.

    Raises:
        DistilledSetError: the folder is an unfinished or damaged set of d3hr.
        DataError: it is neither.
    """
    folder = Path(path)
    if (folder / "manifest.json").is_file() or folder.with_name(folder.name + ".partial").is_dir():
        return DistilledSet.load(folder)
    return load_images(path, keep_duplicates=True, keep_similar_names=True)
