"""The manifest of a distilled set, ``manifest.json``: checked as a whole before any other file of the set is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from d3hr.data.headers import MAX_PIXELS
from d3hr.data.record import DataRecord
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import USUAL_STEPS, DistillSettings, StatisticsSettings
from d3hr.errors import DistilledSetError, SettingsError, first_complaint, flag
from d3hr.fileio.atomic import read_json
from d3hr.fileio.names import class_folders
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.repository import PriorRecord
from d3hr.sets.entries import ClassEntry, Sample, Source
from d3hr.sets.packing import tile_side

CHOOSE_AGAIN = "choose from the data again: 'd3hr distill DATA --candidates real --out SET' with another --ipc."
"""What to do for another number of real images."""
STARTS_FROM_REAL = "real_start"
"""The method of sets whose images are real ones that a prior changed."""
MAX_BYTES = 2**26
"""Largest manifest that is read: 64 MiB, which is room for some hundred thousand classes."""


class _CommonSettings(BaseModel):
    """The settings that mean the same in every method that has them."""

    seed: int = Field(default=0, strict=True)
    steps: int = Field(default=USUAL_STEPS, ge=1)
    denoising_guidance: float = Field(default=1.0, validation_alias=AliasChoices("denoising_guidance", "guidance_scale"))


class Manifest(BaseModel):
    """What a distilled set is and where it came from."""

    model_config = ConfigDict(frozen=True)

    format: Literal["d3hr-set-1"] = "d3hr-set-1"
    method: str
    """``d3hr``, ``chosen``, ``mixed``, ..., or the name of a baseline."""
    image_size: int = Field(ge=1, le=int(MAX_PIXELS**0.5))
    """Side H = W, in pixels."""
    ipc: int = Field(ge=0)
    """Images per class; 0 where only the statistics are kept."""
    pack: int = Field(default=1, ge=1, exclude_if=lambda factor: factor == 1)
    """Pictures along each side of a stored image (see :mod:`d3hr.sets.packing`); the manifest of a set that is not packed lacks it."""
    classes: tuple[ClassEntry, ...] = Field(min_length=1)
    settings: dict[str, Any]
    data: DataRecord
    """The real images."""
    prior: PriorRecord
    """The diffusion prior."""
    teacher: str | None = Field(default=None, exclude_if=lambda fingerprint: fingerprint is None)
    """Fingerprint of the teacher that images were chosen by, if one was given."""
    storage: dict[str, int] = {}
    """Bytes of ``images``, ``statistics`` and ``soft_labels`` in the set, and of the ``prior`` that ``expand`` needs."""
    versions: dict[str, str]

    @field_validator("settings")
    @classmethod
    def _check_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        _CommonSettings.model_validate(settings)
        _distill_settings(settings)
        return settings

    @model_validator(mode="after")
    def _no_contradiction(self) -> Manifest:
        names = [entry.name for entry in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have one name")
        if [entry.label for entry in self.classes] != list(range(len(names))):
            raise ValueError("the labels are not 0, 1, 2, ... in the order of the classes")
        folders = class_folders(names)
        for entry in self.classes:
            if entry.folder != folders[entry.name]:
                raise ValueError(f"class {entry.name!r} has folder {entry.folder!r:.80}, where its name makes {folders[entry.name]!r}")
            if entry.images != self.ipc:
                raise ValueError(f"class {entry.name!r} has {entry.images} images, where ipc is {self.ipc}")
            if any(source.image >= entry.images for source in entry.sources):
                raise ValueError(f"class {entry.name!r} has a source for an image that it has not")
        try:
            tile_side(self.image_size, self.pack)
        except SettingsError as error:
            raise ValueError(error.found) from None
        conditioned = {(entry.prior_class is not None, entry.conditioning_id is not None) for entry in self.classes}
        if len(conditioned) > 1 or (False, True) in conditioned:
            raise ValueError("some classes, but not all, have a conditioning_id and a prior_class")
        return self

    @property
    def conditioning(self) -> list[Conditioning]:
        """The prior's class for each class; empty for a set that was made without a prior."""
        return [
            Conditioning(entry.name, entry.conditioning_id, entry.prior_class, "exact name")
            for entry in self.classes
            if entry.prior_class is not None
        ]

    @classmethod
    def of(
        cls,
        *,
        method: str,
        class_names: Sequence[str],
        ipc: int,
        image_size: int,
        settings: Mapping[str, Any],
        data: DataRecord | None = None,
        prior: PriorRecord | None = None,
        real_counts: Mapping[str, int] | None = None,
        conditioning: Sequence[Conditioning] = (),
        pack: int = 1,
        teacher: str | None = None,
    ) -> Manifest:
        """Return the manifest of a set that is to be made, with the real images (``data``, ``real_counts``), prior and teacher, if any."""
        folders = class_folders(class_names)
        matches = {match.class_name: match for match in conditioning}
        return cls(
            method=method,
            image_size=image_size,
            ipc=ipc,
            pack=pack,
            classes=tuple(
                ClassEntry(
                    name=name,
                    label=label,
                    folder=folders[name],
                    images=ipc,
                    real_images=(real_counts or {}).get(name),
                    conditioning_id=matches[name].conditioning_id if matches else None,
                    prior_class=matches[name].prior_class if matches else None,
                )
                for label, name in enumerate(class_names)
            ),
            settings=dict(settings),
            data=data or DataRecord(),
            prior=prior or PriorRecord(),
            teacher=teacher,
            versions=_versions(),
        )

    def changed(self, *, settings: DistillSettings, ipc: int, samples: Mapping[str, Sample] | None = None) -> Manifest:
        """Return the manifest of another set of the same classes, data and prior, that this version of d3hr makes.

        Its statistics come from other ``samples`` of some classes, if any are given.
        """
        given = samples or {}
        classes = tuple(entry.model_copy(update={"images": ipc, "sample": given.get(entry.name, entry.sample)}) for entry in self.classes)
        changes = {"ipc": ipc, "classes": classes, "settings": settings.as_values(), "storage": {}, "versions": _versions()}
        return Manifest(**{**dict(self), **changes})

    def settings_of_expansion(self, changes: Mapping[str, Any]) -> DistillSettings:
        """Return the settings of a set that is drawn from the statistics of this one; refuse changes that these do not serve."""
        given = {name: value for name, value in changes.items() if value is not None}
        if fixed := sorted(StatisticsSettings.model_fields.keys() & given.keys()):
            found = f"a change of {fixed[0]}"
            raise SettingsError(f"{flag(fixed[0])} decides the statistics, which are made.", found=found, hint="distil anew.")
        values = {"preset": "paper", **self.settings, **given}
        if (candidates := values.get("candidates", "gaussian")) != "gaussian":
            found = f"candidates {candidates}"
            raise SettingsError("Statistics hold no real images, so none can be chosen.", found=found, hint=CHOOSE_AGAIN)
        settings = distill_settings(**values)
        settings.require_no_copies()
        return settings

    def with_sources(self, sources: Mapping[str, Sequence[Source]]) -> Manifest:
        """Return the manifest with the real images that the images of each class are, or start from."""
        classes = tuple(entry.model_copy(update={"sources": tuple(sources.get(entry.name, ()))}) for entry in self.classes)
        return Manifest(**{**dict(self), "classes": classes})

    def key(self) -> dict[str, Any]:
        """Return what decides the set's pixels, as JSON values."""
        return {
            "kind": "distilled set",
            "method": self.method,
            "classes": list(self.class_names),
            "ipc": self.ipc,
            "image_size": self.image_size,
            "settings": self.settings,
            "data": self.data.fingerprint,
            "prior": self.prior.fingerprint,
            "conditioning": [match.key for match in self.conditioning],
            **({"pack": self.pack} if self.pack != 1 else {}),
            **({"teacher": self.teacher} if self.teacher else {}),
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""
        return tuple(entry.name for entry in self.classes)

    @property
    def distill_settings(self) -> DistillSettings | None:
        """The settings of a set that was drawn from class Gaussians, all or in part; None for other methods, which have their own."""
        settings = _distill_settings(self.settings)
        return settings if settings and settings.candidates != "real" else None

    @property
    def real_images(self) -> int:
        """Real images in the set, as they are."""
        return 0 if self.method == STARTS_FROM_REAL else sum(len(entry.sources) for entry in self.classes)

    @property
    def about_real_images(self) -> str:
        """What is to be known of real images in the set, such as "contains 100 real images"; empty where it has none."""
        count = sum(len(entry.sources) for entry in self.classes)
        if not count:
            return ""
        return f"contains {count:,} real images" if self.real_images else f"contains {count:,} images that start from real ones"

    @property
    def seed(self) -> int:
        """Seed of whatever the method drew; 0 for a method that draws nothing."""
        return _CommonSettings.model_validate(self.settings).seed

    @property
    def steps(self) -> int:
        """Points of the sampling grid; the usual 50 for a method that samples nothing."""
        return _CommonSettings.model_validate(self.settings).steps

    @property
    def denoising_guidance(self) -> float:
        """Classifier-free guidance scale of denoising; 1, which is none, for a method that denoises nothing."""
        return _CommonSettings.model_validate(self.settings).denoising_guidance

    def conditioning_in(self, prior_classes: Sequence[str]) -> list[Conditioning]:
        """Return :attr:`conditioning`; refuse a prior that has other classes at these conditioning ids."""
        for match in self.conditioning:
            row = match.conditioning_id
            if prior_classes if row is None else match.prior_class not in prior_classes[row : row + 1]:
                raise DistilledSetError(
                    f"The manifest does not fit the prior: class {match.class_name!r}.",
                    found=f"{'a prompt' if row is None else f'conditioning id {row}'} for {match.prior_class!r}, "
                    f"of a prior of {len(prior_classes)} classes",
                    hint="make the set again.",
                )
        return self.conditioning


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("d3hr", "torch", "diffusers")}


def _distill_settings(settings: dict[str, Any]) -> DistillSettings | None:
    return DistillSettings(**settings) if "statistics_level" in settings else None


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a finished set; refuse one that is missing, is damaged, contradicts itself or is a link out of the set."""
    file = require_inside(folder, folder / "manifest.json")
    if not file.is_file():
        partial = folder.with_name(folder.name + ".partial")
        raise DistilledSetError(
            f"{folder} is not a distilled set.",
            found=f"an unfinished run in {partial}" if partial.is_dir() else "no manifest.json in it",
            hint="repeat the command that made it." if partial.is_dir() else "give a folder written by 'd3hr distill'.",
        )
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{file.stat().st_size:,} bytes, over the limit of {MAX_BYTES:,}")
        return Manifest.model_validate(read_json(file))
    except ValueError as error:
        field, found, _ = first_complaint(error) if isinstance(error, ValidationError) else ("", str(error), "")
        raise DistilledSetError(f"{file} is damaged.", found=f"{field}: {found}" if field else found, hint="make the set again.") from error


def require_inside(folder: Path, path: Path) -> Path:
    """Return ``path``, of which nothing is opened; refuse one in which a symbolic link leads out of the set in ``folder``."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a name that no disk accepts, links in a circle
        raise DistilledSetError(f"{path} cannot be opened.", found=str(error), hint="check the path.") from error
    if not inside:
        raise DistilledSetError(
            f"{path} leads out of the set.", found="a symbolic link", hint="replace links by copies of what they lead to, if you trust it."
        )
    return path
