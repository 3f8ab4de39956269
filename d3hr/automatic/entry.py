"""The one entry to a distillation: with settings of one's own, or with all of them chosen on held-out images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Unpack

from d3hr.automatic.choosing import choose_set
from d3hr.automatic.students import Labels
from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.distillation.presets import DistillOptions
from d3hr.errors import SettingsError, flag, require_kind
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import Execution
from d3hr.pipeline import distill as distill_by_settings
from d3hr.prior.model import Prior
from d3hr.progress import BY_DEFAULT, Progress
from d3hr.sets.distilled_set import DistilledSet

AUTO = "auto"
_OF_CHOICES = frozenset({"ipc", "teacher", "class_map", "seed"})
"""Options that a choice takes, too."""


class ExplicitOptions(DistillOptions, total=False):
    """Options of :func:`d3hr.pipeline.distill`, which says what each means."""

    teacher: Teacher | None
    ipc: int
    image_size: int | None
    store: Literal["images", "statistics"]
    class_map: Mapping[str, str] | None
    execution: Execution
    decoders: int
    shared: str | Path | None
    memory_budget: int | None


def distill(
    images: ImageData,
    prior: Prior | None = None,
    out: str | Path | None = None,
    *,
    preset: str | None = None,
    minutes: float | None = None,
    labels: Labels | None = None,
    test: ImageData | None = None,
    hold_out: float | None = None,
    progress: Progress = BY_DEFAULT,
    **options: Unpack[ExplicitOptions],
) -> DistilledSet:
    """Distil a data set into a few images per class: with settings of one's own, or the best set that some minutes can find.

    Without a prior, a preset and settings, or with the preset ``auto``, ways to make a set are compared on a held-out part of the training
    images, and the best is taken: :func:`d3hr.automatic.choosing.choose_set`. Its evidence is in ``OUT-choice/choice.json`` and in
    ``OUT-report.html``. Otherwise it is :func:`d3hr.pipeline.distill`, which takes the prior, the preset and all ``options``.

    Args:
        images: the real images.
        prior: a diffusion prior that knows every class by name; None where none is at hand.
        out: folder to write; by default next to the images, with ``-distilled`` after their name.
        preset: ``auto``, or one of :data:`~d3hr.distillation.presets.PRESETS`.
        minutes: what a choice may take, 20 by default.
        labels: what students of a choice learn from: ``hard`` (the default), or ``soft``, the answers of a teacher.
        test: test images, on which the set that was chosen is compared with random real images once, at the end.
        hold_out: share of each class that a choice holds out, 0.2 by default.
        progress: where to report.
        options: ``ipc`` (10), ``seed``, ``teacher`` and ``class_map``, which a choice takes, too; all others are settings.

    Raises:
        D3hrError: as the two functions.
    """
    require_kind("images", images, ImageData, OPEN_IMAGES)
    of_choice = {"minutes": minutes, "labels": labels, "test": test, "hold_out": hold_out}
    settings = given(options)
    if is_automatic(preset, prior is not None, settings):
        require_no_settings(settings)
        taken: dict[str, Any] = {name: value for name, value in {**of_choice, **options}.items() if value is not None}
        return choose_set(images, prior, out, **taken, progress=progress).distilled
    require_nothing_of_choices(of_choice)
    if out is None:
        raise SettingsError("--out is missing.", found="settings of your own", hint="name a folder to write to.")
    return distill_by_settings(images, prior, out, preset=preset, progress=progress, **options)


def given(options: Mapping[str, Any]) -> list[str]:
    """Return the names of the options that are settings and have a value."""
    return [name for name, value in options.items() if value is not None and name not in _OF_CHOICES]


def is_automatic(preset: str | None, has_prior: bool, settings: list[str]) -> bool:
    """Return whether everything is to be chosen: by the preset ``auto``, or where neither preset, prior nor settings are given."""
    return preset == AUTO or (preset is None and not has_prior and not settings)


def require_no_settings(settings: list[str]) -> None:
    """Refuse settings next to the preset ``auto``, which chooses them."""
    if settings:
        raise SettingsError(
            "The preset auto chooses all settings.", found=", ".join(map(flag, settings)), hint="leave them out, or name another --preset."
        )


def require_nothing_of_choices(values: Mapping[str, Any]) -> None:
    """Refuse options of a choice where nothing is chosen."""
    idle = [name for name, value in values.items() if value is not None]
    if idle:
        raise SettingsError(
            f"{flag(idle[0])} is for sets that are chosen.",
            found="a prior, a preset or settings of your own",
            hint="leave it out, or leave these out; --preset auto tries a prior of your own next to other ways.",
        )
