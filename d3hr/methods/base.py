"""What a method of making a set is: a name, its settings, what it needs, and one way to call it, the same for all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.settings import PresetOverrides
from d3hr.errors import DataError, SettingsError, listed, settings_error
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.checksums import digest_of
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.class_matching import Conditioning, match_classes
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.manifest import Manifest
from d3hr.sets.writer import write_set


def write_baseline(out: str | Path, manifest: Manifest, images_of: Callable[[str], Tensor], progress: Progress) -> DistilledSet:
    """Write the set of ``manifest``, or return it where it is finished.

    Args:
        out: folder to write.
        manifest: what the set is.
        images_of: gives the images of one class, float [K, 3, H, W] in [-1, 1].
        progress: where to report.

    Raises:
        OutputError: ``out`` holds something else.
    """
    with StagedFolder(out, manifest.key()) as stage:
        if stage.finished:
            return DistilledSet.load(out)
        write_set(stage, manifest, lambda names: ((name, images_of(name)) for name in names), progress=progress)
    return DistilledSet.load(out)


def manifest_of_real(method: str, images: ImageData, *, ipc: int, settings: Mapping[str, Any]) -> Manifest:
    """Return the manifest of a set that consists of real images, at the size that ``images`` are delivered in."""
    return Manifest.of(
        method=method,
        class_names=images.class_names,
        ipc=ipc,
        image_size=images.image_size,
        settings=settings,
        data=images.record,
        real_counts=images.counts,
    )


def require_images_per_class(ipc: int) -> None:
    """Raise :class:`SettingsError` unless there is at least one image per class."""
    if ipc < 1:
        raise SettingsError("--ipc must be at least 1.", found=f"{ipc}", hint="give the number of images per class.")


def require_real_images(images: ImageData, count: int) -> None:
    """Raise :class:`DataError` unless every class has at least ``count`` images."""
    small = [f"{name} ({found})" for name, found in images.counts.items() if found < count]
    if small:
        raise DataError(f"Some classes have fewer than {count} real images to draw.", found=listed(small), hint="use a lower --ipc.")


Need = Literal["prior", "teacher"]


@dataclass(frozen=True)
class Materials:
    """What a method may draw on.

    Attributes:
        images: the real training images.
        image_size: side, in pixels, of the sets to make.
        prior: the diffusion prior.
        teacher: a network trained on all the real images.
        class_map: class -> prior's class, for classes whose names do not match (see :func:`~d3hr.prior.class_matching.match_classes`).
    """

    images: ImageData
    image_size: int
    prior: Prior | None = None
    teacher: Teacher | None = None
    class_map: Mapping[str, str] | None = None

    @property
    def given(self) -> frozenset[Need]:
        """What is there beside the images."""
        things: dict[Need, Prior | Teacher | None] = {"prior": self.prior, "teacher": self.teacher}
        return frozenset(need for need, thing in things.items() if thing is not None)

    @cached_property
    def conditioning(self) -> tuple[Conditioning, ...]:
        """The prior's class for each class of the images.

        Raises:
            ClassMismatch: a class matches no class of the prior, or several.
        """
        assert self.prior is not None
        return match_classes(self.images.class_names, self.prior.class_names, of=self.images.source, class_map=self.class_map)


class MethodSettings(BaseModel):
    """The settings of a method that has none; those of others derive from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def needs(self) -> frozenset[Need]:
        """What the method needs with these settings, beside real images."""
        return frozenset()

    def check(self, materials: Materials) -> None:
        """Raise where the method cannot work on ``materials``, which have what it needs."""


class DrawnSettings(MethodSettings, PresetOverrides):
    """Settings of a method whose images a prior draws: a preset of d3hr, and what differs from it.

    The images have the prior's size, and the prior must have every class.
    """

    @property
    def needs(self) -> frozenset[Need]:
        """A prior."""
        return frozenset({"prior"})

    def check(self, materials: Materials) -> None:
        """Refuse another image size than the prior's, and classes that it does not know."""
        assert materials.prior is not None
        if materials.image_size != materials.prior.image_size:
            raise SettingsError(
                "Images that a prior draws have its size.",
                found=f"--image_size {materials.image_size}",
                hint=f"use --image_size {materials.prior.image_size}, or leave it out.",
            )
        _ = materials.conditioning


@dataclass(frozen=True)
class Order:
    """A set to be made.

    Attributes:
        method: name of the method.
        materials: what it is made from.
        out: folder to write.
        ipc: images per class.
        seed: seed of whatever the method draws.
        shared: folder for what depends neither on ``ipc`` nor on ``seed``; all sets of one comparison share it.
        progress: where to report.
    """

    method: str
    materials: Materials
    out: Path
    ipc: int
    seed: int
    shared: Path
    progress: Progress

    @property
    def images(self) -> ImageData:
        """The real images, at the size of the set."""
        return self.materials.images.at_size(self.materials.image_size)

    @property
    def prior(self) -> Prior:
        """The prior of a method that needs one."""
        assert self.materials.prior is not None
        return self.materials.prior

    @property
    def teacher(self) -> Teacher:
        """The teacher of a method that needs one."""
        assert self.materials.teacher is not None
        return self.materials.teacher

    def shared_folder(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Return where in ``shared`` the things of ``kind`` lie that ``key`` decides."""
        return self.shared / f"{kind}-{digest_of(key)[:16]}"


S = TypeVar("S", bound=MethodSettings)


@dataclass(frozen=True)
class Method(Generic[S]):
    """A way to make a set.

    Attributes:
        name: what commands and manifests call it.
        summary: one phrase, for tables.
        settings: the model of its settings.
        write: makes the set.
    """

    name: str
    summary: str
    settings: type[S]
    write: Callable[[Order, S], DistilledSet]

    @property
    def options(self) -> dict[str, Any]:
        """Name -> default of each setting; where None is the default, a preset decides."""
        return {name: field.default for name, field in self.settings.model_fields.items()}

    def parse(self, settings: Mapping[str, Any], given: Collection[Need]) -> S:
        """Return checked settings.

        Args:
            settings: those that differ from the defaults.
            given: what the method may draw on beside real images.

        Raises:
            SettingsError: a setting is unknown or out of range, or the method needs what is not given; it names method and flag.
        """
        unknown = sorted(settings.keys() - self.options.keys())
        if unknown:
            raise SettingsError(
                f"Method {self.name} has no setting {unknown[0]!r}.",
                found=f"--settings with {', '.join(unknown)}",
                hint=f"use: {', '.join(self.options)}." if self.options else "it takes none: leave out --settings.",
            )
        try:
            parsed = self.settings(**settings)
        except ValidationError as error:
            raise settings_error(error, f"Method {self.name}, --settings ", "correct the value.") from None
        for need in sorted(parsed.needs - set(given)):
            raise SettingsError(f"Method {self.name} needs a {need}.", found=f"no {need}", hint=f"give --{need}.")
        return parsed

    def check(self, materials: Materials, settings: Mapping[str, Any]) -> S:
        """Return checked settings, as :meth:`parse` does, having made sure that the method can work on ``materials``.

        Raises:
            SettingsError: as :meth:`parse`, or the image size does not fit.
            ClassMismatch: prior or teacher lack a class.
        """
        parsed = self.parse(settings, materials.given)
        parsed.check(materials)
        return parsed

    def make(
        self,
        materials: Materials,
        out: str | Path,
        *,
        ipc: int,
        seed: int = 0,
        shared: str | Path,
        progress: Progress = SILENT,
        **settings: Any,
    ) -> DistilledSet:
        """Make a set, go on where an earlier run was stopped, or return the set that it finished.

        Args:
            materials: real images, and what else the method needs.
            out: folder to write.
            ipc: images per class.
            seed: seed of whatever the method draws.
            shared: folder for what depends neither on ``ipc`` nor on ``seed``: made once, found again by what decides it.
            progress: where to report.
            settings: settings that differ from :attr:`options`.

        Raises:
            SettingsError: a setting is unknown or out of range, or something the method needs is missing.
            ClassMismatch: prior or teacher lack a class.
            DataError: a class has too few images.
            OutputError: ``out`` holds something else.
            NumericalError: a latent or a pixel is not finite.
        """
        parsed = self.check(materials, settings)
        require_images_per_class(ipc)
        return self.write(Order(self.name, materials, Path(out), ipc, seed, Path(shared), progress), parsed)
