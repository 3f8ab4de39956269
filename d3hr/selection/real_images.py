"""The real images of a set: which they are, and their pixels, as they are or changed by a prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d3hr.data.codec import to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import generate_images, invert_by_settings
from d3hr.errors import DataError, NumericalError, listed
from d3hr.evaluation.confidence import cross_validated_probabilities, doubtful, own_confidence, teacher_probabilities
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import Execution
from d3hr.fileio.atomic import load_if_valid, read_json, write_json
from d3hr.fileio.staging import kept_tensors
from d3hr.prior.conditions import Condition
from d3hr.prior.model import Prior
from d3hr.progress import Progress
from d3hr.selection.choosing import Chooser, Confidence
from d3hr.selection.features import Features
from d3hr.sets.entries import Source
from d3hr.sets.packing import pack_chosen
from d3hr.sets.writer import Images

CHOOSING = "choosing real images"
"""Title of the bar of the choice."""


@dataclass(frozen=True)
class Selection:
    """Chooses the real images of a set, and delivers them.

    Attributes:
        images: the real images.
        settings: what is chosen, and how.
        conditions: class -> what the prior is given of it; empty without a prior.
        prior: for latents, the rule ``interval``, and images that are denoised.
        teacher: for its features, and for how sure it is of each image.
        folder: where what does not depend on the number of images is kept for other sets of the same data; by default nowhere.
    """

    images: ImageData
    settings: DistillSettings
    conditions: Mapping[str, Condition]
    prior: Prior | None
    teacher: Teacher | None
    folder: Path | None = None

    @property
    def count(self) -> int:
        """Real images of each class to choose."""
        return self.settings.real_images * self.settings.pack**2

    def choose(self, kept: Path, execution: Execution, progress: Progress) -> dict[str, list[int]]:
        """Return the indices, in its class of the data, of each image chosen; choices of an earlier run, in ``kept``, are used again."""
        names = self.images.class_names
        kept.mkdir(exist_ok=True)
        files = {name: kept / f"{number:06d}.json" for number, name in enumerate(names)}
        chosen: dict[str, list[int]] = {}
        for name, file in files.items():
            values = load_if_valid(file, read_json, progress)
            if values is not None:
                chosen[name] = values["chosen"]
        missing = [name for name in names if name not in chosen]
        if missing:
            features = Features(self.images, self.settings, self.conditions, self.prior, self.teacher, self.folder, progress)
            confidence = self._confidence(self.folder or kept, progress)
            chooser = Chooser(features, self.count, confidence, self._centroids(features))
            with progress.bar(CHOOSING, len(names)) as bar:
                bar.update(len(chosen))
                for index, indices in execution.run(chooser, missing):
                    name = missing[index]
                    write_json(files[name], {"chosen": indices})
                    chosen[name] = indices
                    bar.update(len(chosen), note=name)
        return {name: chosen[name] for name in names}

    def deliver(self, chosen: Mapping[str, Sequence[int]], image_size: int, execution: Execution) -> Images:
        """Return a function that gives the images of each class."""
        if self.settings.candidates == "real" and self.settings.denoising_level:
            assert self.prior is not None
            start = RealStart(self.images.at_size(image_size), self.prior, self.settings, self.conditions)

            def changed(names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
                tasks = [(name, tuple(chosen[name])) for name in names]
                return ((names[index], images) for index, images in execution.run(start, tasks))

            return changed

        return as_they_are(self.images, chosen, image_size, self.settings.pack)

    def _confidence(self, folder: Path, progress: Progress) -> Confidence | None:
        if not self.settings.judges_confidence:
            return None
        if self.teacher is not None:
            probabilities = self._asked(self.teacher, folder, progress)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            probabilities = cross_validated_probabilities(self.images, folder, progress=progress)
        own = {name: own_confidence(probabilities[name], label) for label, name in enumerate(self.images.class_names)}
        return Confidence(own, doubtful(probabilities))

    def _asked(self, teacher: Teacher, folder: Path, progress: Progress) -> dict[str, Tensor]:
        """Return the probabilities that a teacher gives, kept in ``folder``."""
        key = {"kind": "probabilities", "data": self.images.fingerprint, "teacher": teacher.fingerprint}
        numbers = {name: f"{label:06d}" for label, name in enumerate(self.images.class_names)}

        def compute() -> dict[str, Tensor]:
            probabilities = teacher_probabilities(teacher, self.images, progress)
            return {numbers[name]: rows for name, rows in probabilities.items()}

        tensors = kept_tensors(folder, "probabilities", key, 0, compute, progress)
        return {name: tensors[number] for name, number in numbers.items()}

    def _centroids(self, features: Features) -> dict[str, Tensor] | None:
        if self.settings.rule != "separation":
            return None
        return {name: features.of(name).mean(dim=0) for name in self.images.class_names}


def require_real_images(images: ImageData, count: int) -> None:
    """Raise :class:`DataError` unless every class has ``count`` images."""
    small = [f"{name} ({found})" for name, found in images.counts.items() if found < count]
    if small:
        raise DataError(f"Some classes have fewer than {count} real images to choose from.", found=listed(small), hint="use a lower --ipc.")


def sources_of(images: ImageData, chosen: Mapping[str, Sequence[int]], pack: int = 1) -> dict[str, list[Source]]:
    """Return where the images of each class come from; of packed images, the first four are the tiles of the first stored image."""
    return {
        name: [
            Source(image=place // pack**2, name=source, index=index)
            for place, (index, source) in enumerate(zip(indices, images.names(name, indices), strict=True))
        ]
        for name, indices in chosen.items()
    }


def as_they_are(images: ImageData, chosen: Mapping[str, Sequence[int]], image_size: int, pack: int = 1) -> Images:
    """Return a function that gives the images chosen of each class, resized to ``image_size`` in one step."""
    return lambda names: ((name, to_unit_range(pack_chosen(images, name, chosen[name], pack, image_size))) for name in names)


@dataclass(frozen=True)
class RealStart:
    """Changes real images by a prior: inverts them to the denoising level, and denoises them from there, with guidance.

    Work whose tasks are (class, indices of its images); at level 0 an image would be itself.
    """

    images: ImageData
    prior: Prior
    settings: DistillSettings
    conditions: Mapping[str, Condition]

    def open(self) -> Callable[[tuple[str, tuple[int, ...]]], Tensor]:
        """Return :meth:`change`."""
        return self.change

    def change(self, task: tuple[str, tuple[int, ...]]) -> Tensor:
        """Return the changed images, float [K, 3, H, W] in [-1, 1], of a class; errors name it."""
        name, indices = task
        settings, condition = self.settings, self.conditions[name]
        with NumericalError.naming(name):
            parts = self.images.pick(name, indices).split(settings.batch_size)
            clean = (self.prior.encode(part) for part in parts)
            noisy = torch.cat([invert_by_settings(self.prior, part, condition, settings, settings.denoising_level) for part in clean])
            return generate_images(
                self.prior,
                noisy,
                condition,
                level=settings.denoising_level,
                steps=settings.steps,
                guidance_scale=settings.denoising_guidance,
                batch_size=settings.batch_size,
                solver=settings.solver,
            )
