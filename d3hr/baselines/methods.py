"""Everything that makes a set, by name: the method under test and what it must beat, behind one interface.

No loop asks for a method's name; a table does the telling apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from d3hr.baselines.choosing import herding, k_center, k_means_centres, k_means_medoids
from d3hr.baselines.generation import prior_only, prototypes
from d3hr.baselines.materials import SPACES, Materials, Need, Space
from d3hr.baselines.patches import check_patches, tiled_patches
from d3hr.baselines.selection import random_real, require_enough, select_real
from d3hr.baselines.writing import require_images_per_class, write_baseline
from d3hr.distillation.pipeline import distill, expand
from d3hr.distillation.settings import STATISTICS_FIELDS, DistillSettings, distill_settings
from d3hr.errors import SettingsError
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed
from d3hr.storage import DistilledSet, Origin


@dataclass(frozen=True)
class Job:
    """One set to make.

    Attributes:
        materials: what may be drawn on.
        out: folder to write.
        ipc: images per class.
        seed: seed of every draw.
        shared: folder for what further sets of the same materials can use again.
        progress: where to report.
    """

    materials: Materials
    out: Path
    ipc: int
    seed: int
    shared: Path
    progress: Progress = SILENT


class Method:
    """A way to make a set. Its options are the keyword arguments of :meth:`run`.

    Attributes:
        summary: what it does, for lists and tables.
        needs: what it cannot do without, beside real images.
    """

    summary: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()

    def run(self, job: Job) -> DistilledSet:
        """Make the set, or return it where it is finished."""
        raise NotImplementedError

    def check(self, name: str, materials: Materials, options: Mapping[str, Any]) -> None:
        """Refuse, before any work, what :meth:`run` could not do.

        Raises:
            SettingsError: an option is unknown or wrong, or a prior or teacher is missing; it names the method.
        """
        unknown = sorted(options.keys() - self.options)
        if unknown:
            known = ", ".join(sorted(self.options)) or "none"
            raise SettingsError(f"Method {name} has no such setting.", found=", ".join(unknown), do=f"its settings are: {known}.")
        for need in sorted(self.needs | self.needs_of(options)):
            if getattr(materials, need) is None:
                raise SettingsError(f"Method {name} needs a {need}.", found=f"no --{need}", do=f"give --{need}.")
        try:
            self.validate(options)
        except SettingsError as error:
            raise SettingsError(f"Method {name}: {error.what}", found=error.found, do=error.do) from None

    @property
    def options(self) -> frozenset[str]:
        """Names of its settings."""
        return frozenset(name for name, each in inspect.signature(self.run).parameters.items() if each.kind is each.KEYWORD_ONLY)

    def needs_of(self, options: Mapping[str, Any]) -> frozenset[Need]:
        """Return what these options need beside :attr:`needs`."""
        return frozenset()

    def validate(self, options: Mapping[str, Any]) -> None:
        """Raise :class:`SettingsError` if a value is wrong."""


class RandomReal(Method):
    """Real images, drawn at random."""

    summary = "random real images"

    def run(self, job: Job) -> DistilledSet:
        """Draw without replacement."""
        sets = job.materials
        return random_real(sets.images, job.out, ipc=job.ipc, image_size=sets.image_size, seed=job.seed, progress=job.progress)


class _Coreset(Method):
    """Real images, chosen by their features."""

    def needs_of(self, options: Mapping[str, Any]) -> frozenset[Need]:
        """Return what the feature space needs."""
        need = SPACES.get(options.get("space", "pixel"))
        return frozenset({need} if need else ())

    def validate(self, options: Mapping[str, Any]) -> None:
        """Refuse an unknown space."""
        if options.get("space", "pixel") not in SPACES:
            raise SettingsError("unknown space.", found=repr(options["space"]), do=f"use one of: {', '.join(SPACES)}.")


class Herding(_Coreset):
    """Real images whose mean follows the class mean."""

    summary = "real images whose mean follows the class mean (the same for every seed)"

    def run(self, job: Job, *, space: Space = "pixel") -> DistilledSet:
        """Choose greedily; see :func:`~d3hr.baselines.choosing.herding`."""
        return _selected(job, "herding", {"space": space}, lambda name: herding(job.materials.features(name, space, job.shared), job.ipc))


class KCenter(_Coreset):
    """Real images that leave none far away."""

    summary = "real images that leave none far away (the same for every seed)"

    def run(self, job: Job, *, space: Space = "pixel") -> DistilledSet:
        """Choose greedily; see :func:`~d3hr.baselines.choosing.k_center`."""
        return _selected(job, "k_center", {"space": space}, lambda name: k_center(job.materials.features(name, space, job.shared), job.ipc))


class KMeans(_Coreset):
    """Real images nearest to the centres of clusters."""

    summary = "real images nearest to the centres of as many clusters"

    def run(self, job: Job, *, space: Space = "pixel") -> DistilledSet:
        """Cluster each class; see :func:`~d3hr.baselines.choosing.k_means_medoids`."""
        settings = {"space": space, "seed": job.seed}
        return _selected(
            job,
            "k_means",
            settings,
            lambda name: k_means_medoids(job.materials.features(name, space, job.shared), job.ipc, derive_seed(job.seed, "k_means", name)),
        )


class Distilled(Method):
    """D3HR with any of its settings, or a baseline that differs from it by some."""

    needs = frozenset({"prior"})

    def __init__(self, summary: str, **fixed: Any) -> None:
        self.summary = summary  # type: ignore[misc]
        self._fixed = fixed

    @property
    def options(self) -> frozenset[str]:
        """The fields of a distillation's settings, less what a job says."""
        return frozenset({"preset", "level", *DistillSettings.model_fields} - {"ipc", "seed", *self._fixed})

    def validate(self, options: Mapping[str, Any]) -> None:
        """Refuse what the settings of a distillation refuse."""
        _settings({**options, **self._fixed})

    def run(self, job: Job, **options: Any) -> DistilledSet:
        """Take the class statistics once for all sets of the same settings, then draw."""
        given = {**options, **self._fixed}
        settings, prior, auto = _settings(given), job.materials.require_prior(), given.get("level") == "auto"
        measured: dict[str, Any] = {name: getattr(settings, name) for name in STATISTICS_FIELDS}
        drawn = {name: value for name, value in settings.model_dump().items() if name not in {*measured, "ipc", "seed"}}
        if auto:
            measured.pop("statistics_level")
            drawn.pop("denoising_level")
        statistics = distill(
            job.materials.images,
            prior,
            job.shared / f"statistics-{job.materials.key(measured, auto)}",
            level="auto" if auto else None,
            store="statistics",
            class_map=job.materials.class_map,
            progress=job.progress,
            **(measured if auto else {**measured, "denoising_level": settings.statistics_level}),
        )
        return expand(statistics, prior, job.out, ipc=job.ipc, seed=job.seed, progress=job.progress, **drawn)


class PriorOnly(Method):
    """Pure noise, denoised."""

    summary = "images drawn from the prior alone"
    needs = frozenset({"prior"})

    def run(self, job: Job, *, preset: str = "paper", steps: int | None = None, denoising_guidance: float | None = None) -> DistilledSet:
        """Denoise from the top of the grid, with the guidance of a preset."""
        settings = distill_settings(preset, level="auto", steps=steps, denoising_guidance=denoising_guidance)
        return prior_only(
            job.materials.require_prior(),
            job.materials.images.class_names,
            job.out,
            ipc=job.ipc,
            steps=settings.steps,
            guidance_scale=settings.denoising_guidance,
            conditioning=job.materials.conditioning(),
            seed=job.seed,
            progress=job.progress,
        )

    def validate(self, options: Mapping[str, Any]) -> None:
        """Refuse what the settings of a distillation refuse."""
        _settings({**options, "level": "auto"})


class Prototypes(Method):
    """Centres of clusters of latents, denoised."""

    summary = "centres of clusters of latents, noised and denoised (after D4M)"
    needs = frozenset({"prior"})

    def run(
        self,
        job: Job,
        *,
        preset: str = "paper",
        steps: int | None = None,
        level: int | None = None,
        denoising_guidance: float | None = None,
    ) -> DistilledSet:
        """Cluster each class's latents, carry the centres to the level by noise, and denoise them."""
        settings = distill_settings(preset, level=level, steps=steps, denoising_guidance=denoising_guidance, ipc=job.ipc, seed=job.seed)
        require_enough(job.materials.images, job.ipc)
        return prototypes(
            job.materials.require_prior(),
            job.materials.images,
            lambda name: k_means_centres(
                job.materials.features(name, "latent", job.shared), job.ipc, derive_seed(job.seed, "prototypes", name)
            ),
            job.out,
            ipc=job.ipc,
            settings=settings,
            conditioning=job.materials.conditioning(),
            progress=job.progress,
        )

    def validate(self, options: Mapping[str, Any]) -> None:
        """Refuse what the settings of a distillation refuse."""
        _settings(options)


class Patches(Method):
    """Tiled crops of real images that a teacher finds realistic."""

    summary = "patches of real images that a teacher finds most realistic (after RDED)"
    needs = frozenset({"teacher"})

    def run(self, job: Job, *, factor: int = 2, crops: int = 5, candidates: int = 300) -> DistilledSet:
        """Judge, rank and tile; see :func:`~d3hr.baselines.patches.tiled_patches`."""
        require_images_per_class(job.ipc)
        materials = job.materials
        check_patches(materials, job.ipc, factor, crops, candidates)
        teacher = materials.require_teacher()
        teacher.require_classes(materials.images.class_names, "the data")
        settings = {"factor": factor, "crops": crops, "candidates": candidates, "seed": job.seed}
        origin = Origin(
            method="patches",
            class_names=materials.images.class_names,
            ipc=job.ipc,
            image_size=materials.image_size,
            settings={**settings, "teacher": teacher.fingerprint},
            data=materials.data(),
            prior={},
            real_counts=materials.images.counts,
        )
        return write_baseline(job.out, origin, lambda name: tiled_patches(materials, name, ipc=job.ipc, **settings), job.progress)


METHODS: dict[str, Method] = {
    "d3hr": Distilled("groups that match the Gaussian of each class's inverted latents"),
    "random_real": RandomReal(),
    "herding": Herding(),
    "k_center": KCenter(),
    "k_means": KMeans(),
    "prior_only": PriorOnly(),
    "forward_noise": Distilled("as d3hr, with forward noise in place of inversion", carrying="forward_noise"),
    "latent_gaussian": Distilled("groups that match the Gaussian of each class's latents, without inversion or denoising", level=0),
    "prototypes": Prototypes(),
    "patches": Patches(),
}
"""Methods by their names on the command line."""


def method_named(name: str) -> Method:
    """Return a method.

    Raises:
        SettingsError: there is none of that name.
    """
    if name not in METHODS:
        raise SettingsError("Unknown method.", found=repr(name), do=f"use one of: {', '.join(METHODS)}.")
    return METHODS[name]


def _settings(options: Mapping[str, Any]) -> DistillSettings:
    """Return the settings of a distillation that options stand for."""
    return distill_settings(options.get("preset", "paper"), **{name: value for name, value in options.items() if name != "preset"})


def _selected(job: Job, method: str, settings: Mapping[str, Any], choose: Any) -> DistilledSet:
    materials = job.materials
    decided = {**settings, **({} if settings["space"] == "pixel" else {"features": materials.key(settings["space"])})}
    return select_real(
        materials.images,
        job.out,
        choose,
        method=method,
        ipc=job.ipc,
        image_size=materials.image_size,
        settings=decided,
        progress=job.progress,
    )
