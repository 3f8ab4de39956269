"""One set to make: what it is made from, where it is written, and what sets of one comparison share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.distillation.settings import Network
from d3hr.errors import require_at_least
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.staging import StagedFolder, folder_of_key, kept_tensors
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import Prior
from d3hr.progress import Progress
from d3hr.selection.real_images import require_real_images
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.manifest import Manifest
from d3hr.sets.writer import Images, write_set


@dataclass(frozen=True)
class MethodInputs:
    """The real images, and the networks that methods may use.

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
    def networks(self) -> frozenset[Network]:
        """The networks that are given."""
        given: dict[Network, Prior | Teacher | None] = {"prior": self.prior, "teacher": self.teacher}
        return frozenset(name for name, network in given.items() if network is not None)

    @cached_property
    def conditioning(self) -> tuple[Conditioning, ...]:
        """The prior's class for each class of the images.

        Raises:
            ClassMismatch: a class matches no class of the prior, or several.
        """
        assert self.prior is not None
        return self.prior.denoiser.match(self.images.class_names, of=self.images.source, class_map=self.class_map)


@dataclass(frozen=True)
class Job:
    """One set to make.

    Attributes:
        method: name of the method.
        inputs: what it is made from.
        out: folder to write.
        ipc: images per class.
        seed: seed of the method's random draws.
        shared: folder for what depends neither on ``ipc`` nor on ``seed``; all sets of one comparison share it.
        progress: where to report.
        execution: where work that is divided into tasks runs.

    Raises:
        SettingsError: ``ipc`` is below 1.
    """

    method: str
    inputs: MethodInputs
    out: Path
    ipc: int
    seed: int
    shared: Path
    progress: Progress
    execution: Execution = SERIAL

    def __post_init__(self) -> None:
        require_at_least("--ipc", self.ipc)

    @property
    def images(self) -> ImageData:
        """The real images, at the size of the set."""
        return self.inputs.images.at_size(self.inputs.image_size)

    @property
    def prior(self) -> Prior:
        """The prior of a method that needs one."""
        assert self.inputs.prior is not None
        return self.inputs.prior

    @property
    def teacher(self) -> Teacher:
        """The teacher of a method that needs one."""
        assert self.inputs.teacher is not None
        return self.inputs.teacher

    def require_real_images(self, count: int | None = None) -> None:
        """Raise :class:`DataError` unless every class has ``count`` real images, by default as many as the set is to have."""
        require_real_images(self.images, self.ipc if count is None else count)

    def shared_folder(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Return the folder in ``shared`` for results of ``kind`` that ``key`` decides."""
        return folder_of_key(self.shared, kind, key)

    def shared_tensors(
        self, kind: str, key: dict[str, Any], class_name: str, compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return tensors of one class that ``key`` decides: those that another set left in ``shared``, or else computed and kept there."""
        return kept_tensors(self.shared, kind, key, self.images.class_names.index(class_name), compute, self.progress)

    def manifest(self, settings: Mapping[str, Any], *, generated: bool = False, pack: int = 1) -> Manifest:
        """Return the manifest of the set.

        Args:
            settings: what decides the images, as JSON values.
            generated: whether the prior generates the images.
            pack: pictures along each side of a stored image.
        """
        return Manifest.of(
            method=self.method,
            class_names=self.images.class_names,
            ipc=self.ipc,
            image_size=self.inputs.image_size,
            settings=settings,
            data=self.images.record,
            prior=self.prior.record if generated else None,
            real_counts=self.images.counts,
            conditioning=self.inputs.conditioning if generated else (),
            pack=pack,
        )

    def write(self, images_of: Callable[[str], Tensor], settings: Mapping[str, Any], *, generated: bool = False) -> DistilledSet:
        """Write the set, or return it if an earlier run has finished it.

        Args:
            images_of: returns the images of one class, float [K, 3, H, W] in [-1, 1].
            settings: what decides the images, as JSON values for the manifest.
            generated: whether the prior generates the images.

        Raises:
            OutputError: ``out`` holds something else.
        """
        manifest = self.manifest(settings, generated=generated)
        return write_whole_set(self.out, manifest, lambda names: ((name, images_of(name)) for name in names), self.progress)


def write_whole_set(out: str | Path, manifest: Manifest, draw: Images, progress: Progress) -> DistilledSet:
    """Write the set that ``manifest`` describes from the images of each class, or return it if an earlier run has finished it."""
    with StagedFolder(out, manifest.key()) as stage:
        if not stage.finished:
            write_set(stage, manifest, draw, progress=progress)
    return DistilledSet.load(out)
