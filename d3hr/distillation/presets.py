"""Settings of a distillation that have a name, and the options that say what differs from them."""

from typing import Any, Literal, TypedDict, Unpack

from pydantic import ValidationError

from d3hr.distillation.settings import (
    Candidates,
    ChoiceSettings,
    DistillSettings,
    ExactStd,
    ForwardProcess,
    Keep,
    Rule,
    Skewness,
    Solver,
    Space,
    StatisticsDtype,
    Strategy,
)
from d3hr.errors import SettingsError, flag, settings_error


class GroupOptions(TypedDict, total=False):
    """Options of :func:`~d3hr.distillation.grouping.select_groups`.

    :class:`~d3hr.distillation.settings.GroupSettings` says what each means.
    """

    strategy: Strategy
    num_candidates: int
    weights: tuple[float, float, float]
    skewness: Skewness
    exact_std: ExactStd
    temperature: float
    seed_by_class: bool
    seed: int


class ExpandOptions(GroupOptions, total=False):
    """Options of :func:`d3hr.expand`: all that may differ between sets from the same statistics."""

    denoising_level: int
    denoising_guidance: float
    candidates: Candidates


class DistillOptions(ExpandOptions, total=False):
    """Options of :func:`d3hr.distill` and :func:`d3hr.plan`, next to preset and IPC; :class:`DistillSettings` says what each means.

    ``level`` sets ``statistics_level`` and ``denoising_level``.
    """

    level: int | Literal["auto"]
    steps: int
    forward_process: ForwardProcess
    statistics_level: int
    inversion_guidance: float
    inversion_stride: int
    solver: Solver
    batch_size: int | Literal["auto"]
    statistics_dtype: StatisticsDtype
    max_images_per_class: int | None
    tolerance: float | None
    sample_seed: int | None
    modes: int
    rank: int
    real_share: float
    space: Space
    components: int
    keep: Keep
    easiest_share: float
    rule: Rule
    pack: int


PRESETS: dict[str, DistillOptions] = {
    "paper": {},
    "released": {"statistics_level": 30, "weights": (1.0, 1.0, 0.1), "skewness": "per_image", "seed_by_class": False},
    "fast": {"inversion_stride": 6},
    "mixture": {
        "modes": 5,
        "strategy": "exact",
        "exact_std": "population",
        "temperature": 0.85,
        "num_candidates": 10_000,
        "statistics_level": 5,
        "denoising_level": 5,
        "inversion_guidance": 1.0,
    },
    "gentle": {
        "strategy": "exact",
        "exact_std": "population",
        "statistics_level": 25,
        "denoising_level": 25,
        "inversion_guidance": 1.0,
        "denoising_guidance": 1.0,
    },
    "real": {
        "candidates": "real",
        "strategy": "exact",
        "weights": (1.0, 1.0, 0.0),
        "statistics_level": 0,
        "denoising_level": 0,
        "inversion_guidance": 1.0,
        "denoising_guidance": 1.0,
    },
}
"""``paper``: arXiv 2505.18399. ``released``: what its public code does. ``fast``: the paper's with a fifth of its network calls in
inversion; class statistics within a tenth of a sigma (``benchmarks/speed/fast_preset.py``). ``mixture``: five Gaussians per class, near the
clean latents (docs/results.md says what that is worth). ``gentle``: for priors fitted in minutes, which strong guidance distorts. ``real``:
real images, chosen; no prior is needed."""
USUAL: dict[Candidates, str] = {"gaussian": "paper", "real": "real", "mixed": "mixture"}
"""The preset where none is given, by the candidates."""


def distill_settings(preset: str | None = None, *, ipc: int = 10, **options: Unpack[DistillOptions]) -> DistillSettings:
    """Return the settings of one of :data:`PRESETS`, by default the :data:`USUAL` one, with changes; an option of None changes nothing.

    ``level="auto"`` and ``batch_size="auto"`` are measured in a distillation; here the level is at the same share of the grid as the
    preset's, and the batch size is the preset's.

    Raises:
        SettingsError: the preset or a setting is unknown, out of range, contradicts another, or has no effect, given the others.
    """
    preset = preset or USUAL.get(options.get("candidates") or "gaussian", "paper")
    if preset not in PRESETS:
        raise SettingsError("Unknown preset.", found=repr(preset), hint=f"use one of: {', '.join(PRESETS)}.")
    changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if changes.get("batch_size") == "auto":
        del changes["batch_size"]
    level = changes.pop("level", None)
    doubled = [name for name in ("statistics_level", "denoising_level") if name in changes]
    if level is not None and doubled:
        raise SettingsError(
            "--level sets both levels.", found=f"--level with {' and '.join(map(flag, doubled))}", hint="give --level, or the other two."
        )
    if level == "auto":
        others = {"forward_noise", "real"} & {changes.get("forward_process"), changes.get("candidates", PRESETS[preset].get("candidates"))}
        if others:
            raise SettingsError("--level auto measures inverted latents.", found=others.pop().replace("_", " "), hint="give a number.")
        usual = distill_settings(preset)
        level = max(1, usual.statistics_level * changes.get("steps", usual.steps) // usual.steps)
    if level is not None:
        changes |= {"statistics_level": level, "denoising_level": level}
    try:
        settings = DistillSettings(**{**PRESETS[preset], **changes, "ipc": ipc})
    except ValidationError as error:
        raise settings_error(error) from None
    unused = sorted(settings.idle & changes.keys() - {"candidates"})
    if unused:
        found = f"statistics at level {settings.statistics_level}, reached by {settings.forward_process}"
        if settings.real_images:
            found = f"{settings.candidates} candidates, rule {settings.rule}, strategy {settings.strategy}, keep {settings.keep}"
        elif unused[0] in ChoiceSettings.model_fields:
            found = "no real candidates"
        raise SettingsError(f"{flag(unused[0])} has no effect here.", found=found, hint="leave it out.")
    return settings
