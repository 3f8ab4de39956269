"""The settings of a distillation, declared once: type, bounds, default and documentation, which is the help of the flags.

Settings that decide the class statistics are kept apart from those that decide what is drawn from them, since one set of statistics serves
many sets of images. :mod:`d3hr.distillation.overrides` derives what the command line, the methods and the recipes take.
"""

from collections.abc import Iterable
from typing import Any, Literal, Self, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from d3hr.errors import SettingsError, flag, settings_error

ExactStd = Literal["unbiased", "population"]
ForwardProcess = Literal["inversion", "forward_noise"]
Skewness = Literal["per_dimension", "per_image"]
Solver = Literal["ddim", "fixed_point"]
StatisticsDtype = Literal["float32", "float16"]
Strategy = Literal["search", "exact", "random"]
USUAL_STEPS = 50
"""Points of the sampling grid, unless others are given: the paper's."""


class GroupSettings(BaseModel):
    """How a group of latents is chosen for each class."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ipc: int = Field(default=10, ge=1)
    """images per class"""
    strategy: Strategy = "search"
    """search (the best of many random groups, as in the paper), exact (one group standardised to the moments) or random (one draw)"""
    num_candidates: int = Field(default=1_000_000, ge=1)
    """candidate groups of a search"""
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5)
    """weights of the mean, std and skewness terms of the group score"""
    skewness: Skewness = "per_dimension"
    """skewness over the group in each dimension (the paper), or over the dimensions of each image (the released code)"""
    exact_std: ExactStd = "unbiased"
    """which standard deviation of an exact group equals sigma"""
    temperature: float = Field(default=1.0, ge=0)
    """factor on sigma when latents are drawn (the paper has 1); below 1 images are more typical of their class"""
    seed_by_class: bool = True
    """draw other noise for each class; the released code draws the same noise for all"""
    seed: int = Field(default=0, ge=0)
    """seed of the draws"""


class StatisticsSettings(BaseModel):
    """How the statistics of each class are measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(default=USUAL_STEPS, ge=2)
    """points of the sampling grid"""
    forward_process: ForwardProcess = "inversion"
    """how clean latents z reach the statistics level: inversion (the paper), or forward_noise, sqrt(a) z + sqrt(1 - a) e with random e"""
    statistics_level: int = Field(default=31, ge=0)
    """level at which the class statistics are measured; 0 is that of clean latents"""
    inversion_guidance: float = Field(default=4.0, ge=0)
    """classifier-free guidance scale of inversion"""
    inversion_stride: int = Field(default=1, ge=1)
    """levels from one noise prediction of inversion to the next; denoising visits every level"""
    solver: Solver = "ddim"
    """ddim (one noise prediction in each step of inversion) or fixed_point (the exact inverse of denoising)"""
    batch_size: int = Field(default=64, ge=1)
    """images in one network call"""
    statistics_dtype: StatisticsDtype = "float32"
    """precision of the class statistics on disk, from which groups are drawn; they are gathered in float64"""
    max_images_per_class: int | None = Field(default=None, ge=2)
    """measure the statistics on at most this many images of each class, drawn at random; by default on all"""
    tolerance: float | None = Field(default=None, gt=0, lt=1)
    """stop measuring a class when the standard error of its mean and std is below this share of sigma, such as 0.02"""
    sample_seed: int | None = Field(default=None, ge=0)
    """seed of the sample that max_images_per_class or tolerance draws; by default that of the set, so that each has its own"""
    modes: int = Field(default=1, ge=1, le=1000)
    """Gaussians that describe a class, one for each k-means cluster of its clean latents; the paper has 1"""
    rank: int = Field(default=0, ge=0, le=4096)
    """directions of largest variance in which each Gaussian keeps its covariance; the paper has 0, independent dimensions"""


class DistillSettings(GroupSettings, StatisticsSettings):
    """Everything that decides the pixels of a distilled set, given data and prior."""

    denoising_level: int = Field(default=31, ge=0)
    """level from which groups are denoised; 0 if the statistics are those of clean latents, and only then"""
    denoising_guidance: float = Field(default=4.0, ge=0)
    """classifier-free guidance scale of denoising"""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        for name in ("statistics_level", "denoising_level"):
            if getattr(self, name) >= self.steps:
                raise ValueError(f"{name} {getattr(self, name)} is not on a grid of {self.steps} steps")
        if (self.statistics_level == 0) != (self.denoising_level == 0):
            raise ValueError("only groups from the statistics of level 0 are clean latents: both levels are 0, or neither")
        if self.forward_process == "forward_noise" and self.statistics_level == 0:
            raise ValueError("forward noise needs a level above 0, which is that of clean latents")
        if self.solver == "fixed_point" and self.inversion_stride > 1:
            raise ValueError("inversion_stride is 1 with solver fixed_point, which undoes denoising level by level")
        return self

    def require_no_copies(self) -> None:
        """Refuse to draw the mean of a mode more than once, at temperature 0."""
        if not self.temperature and self.ipc > self.modes:
            raise SettingsError(
                "At temperature 0 every mode of a class draws its mean, and nothing else.",
                found=f"{self.ipc} images of {self.modes} mode(s)",
                hint="give --temperature above 0, or as few images as there are modes.",
            )

    @property
    def method(self) -> str:
        """The method that a manifest names for sets of these settings: ``d3hr``, ``forward_noise`` or ``latent_gaussian``."""
        if self.statistics_level == 0:
            return "latent_gaussian"
        return "d3hr" if self.forward_process == "inversion" else "forward_noise"

    @property
    def inversion_level(self) -> int:
        """Level that inversion climbs to; 0 if nothing is inverted."""
        return self.statistics_level if self.forward_process == "inversion" else 0

    @property
    def subsampled(self) -> bool:
        """Whether statistics may come from a part of a class's images."""
        return self.max_images_per_class is not None or self.tolerance is not None

    def samples(self, count: int) -> bool:
        """Return whether the statistics of a class of ``count`` images may come from a part of them."""
        return self.tolerance is not None or (self.max_images_per_class is not None and self.max_images_per_class < count)

    @property
    def seed_of_sample(self) -> int:
        """Seed of the sample, if one is drawn."""
        return self.seed if self.sample_seed is None else self.sample_seed

    def with_sample_seed(self, counts: Iterable[int]) -> Self:
        """Return the settings for classes of so many images, with the seed of the sample: None where all images are seen."""
        return self.model_copy(update={"sample_seed": self.seed_of_sample if any(map(self.samples, counts)) else None})

    @property
    def idle(self) -> frozenset[str]:
        """Names of the settings that have no effect, given the others."""
        unused = set() if self.inversion_level else {"inversion_guidance", "solver", "inversion_stride"}
        unused |= set() if self.subsampled else {"sample_seed"}
        return frozenset(unused if self.denoising_level else {*unused, "denoising_guidance"})

    def as_values(self) -> dict[str, Any]:
        """Return the settings that have an effect, as JSON values: what a manifest and the key of a set hold."""
        return self.model_dump(mode="json", exclude=set(self.idle))


class GroupOptions(TypedDict, total=False):
    """Options of :func:`~d3hr.distillation.grouping.select_groups`; :class:`GroupSettings` says what each means."""

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
}
"""``paper``: arXiv 2505.18399. ``released``: what its public code does. ``fast``: the paper's with a fifth of its network calls in
inversion; class statistics within a tenth of a sigma (``benchmarks/speed/fast_preset.py``). ``mixture``: five Gaussians per class, near the
clean latents (docs/results.md says what that is worth). ``gentle``: for priors fitted in minutes, which strong guidance distorts."""


def distill_settings(preset: str = "paper", *, ipc: int = 10, **options: Unpack[DistillOptions]) -> DistillSettings:
    """Return the settings of one of :data:`PRESETS` with changes; an option of None changes nothing.

    ``level="auto"`` and ``batch_size="auto"`` are measured in a distillation; here the level is at the same share of the grid as the
    preset's, and the batch size is the preset's.

    Raises:
        SettingsError: the preset or a setting is unknown, out of range, contradicts another, or has no effect, given the others.
    """
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
        if changes.get("forward_process") == "forward_noise":
            raise SettingsError("--level auto measures inverted latents.", found="forward noise", hint="give a number.")
        usual = distill_settings(preset)
        level = max(1, usual.statistics_level * changes.get("steps", usual.steps) // usual.steps)
    if level is not None:
        changes |= {"statistics_level": level, "denoising_level": level}
    try:
        settings = DistillSettings(**{**PRESETS[preset], **changes, "ipc": ipc})
    except ValidationError as error:
        raise settings_error(error) from None
    unused = sorted(settings.idle & changes.keys())
    if unused:
        raise SettingsError(
            f"{flag(unused[0])} has no effect here.",
            found=f"statistics at level {settings.statistics_level}, reached by {settings.forward_process}",
            hint="leave it out.",
        )
    return settings
