"""The settings of a distillation, and the presets as data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from d3hr.errors import SettingsError, settings_error

Strategy = Literal["search", "exact", "random"]
MOST_MODES = 1000
"""Largest number of Gaussians that may describe a class."""
MOST_RANK = 4096
"""Largest number of directions that may be kept of a covariance."""


class GroupSettings(BaseModel):
    """How a group of latents is chosen for each class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ipc: int = Field(default=10, ge=1)
    """Images per class, K."""
    strategy: Strategy = "search"
    """``search``: best of many random groups (the paper). ``exact``: one group standardised to the moments. ``stratified``: in every
    dimension one latent from each K-th of the Gaussian. ``random``: one draw."""
    num_candidates: int = Field(default=1_000_000, ge=1)
    """Candidate groups of a search, M."""
    weights: tuple[float, float, float] = (1.0, 1.0, 0.5)
    """Weights of the mean, std and skewness terms of the group score."""
    skewness: Literal["per_dimension", "per_image"] = "per_dimension"
    """Skewness over the group in each dimension (the paper), or over the dimensions of each image (the released code)."""
    exact_std: Literal["unbiased", "population"] = "unbiased"
    """Which standard deviation of an ``exact`` group equals sigma."""
    temperature: float = Field(default=1.0, ge=0)
    """Factor on sigma with which a chosen group is drawn; the paper has 1. Below 1 latents lie nearer to the means of their modes."""
    seed_by_class: bool = True
    """Whether each class has noise of its own; the released code draws the same noise for every class."""
    seed: int = Field(default=0, ge=0)
    """Seed of the draws."""


class DistillSettings(GroupSettings):
    """Everything that decides the pixels of a distilled set, beside data and prior; what decides nothing is left out of its dump."""

    steps: int = Field(default=50, ge=2)
    """Points of the sampling grid."""
    carrying: Literal["inversion", "forward_noise"] = "inversion"
    """How clean latents reach the statistics level: by inversion (D3HR), or as sqrt(a) z + sqrt(1 - a) e with fresh noise e (DDPM)."""
    statistics_level: int = Field(default=31, ge=0)
    """Level at which the class Gaussian is measured; 0 is that of the clean latents."""
    denoising_level: int = Field(default=31, ge=0)
    """Level from which a chosen group is denoised; 0 where the statistics are those of clean latents, and nowhere else."""
    inversion_guidance: float = Field(default=4.0, ge=0)
    """Classifier-free guidance scale of inversion."""
    denoising_guidance: float = Field(default=4.0, ge=0)
    """Classifier-free guidance scale of denoising."""
    solver: Literal["ddim", "fixed_point"] = "ddim"
    """``ddim``: one prediction a step. ``multistep``: the same at second order. ``fixed_point``: the exact inverse of denoising."""
    batch_size: int = Field(default=64, ge=1)
    """Images in one network call."""
    statistics_dtype: Literal["float32", "float16"] = "float32"
    """Precision of the class statistics on disk, from which groups are drawn; they are gathered in float64."""
    inversion_stride: int = Field(default=1, ge=1)
    """Levels from one noise prediction of inversion to the next; denoising visits every level."""
    max_images_per_class: int | None = Field(default=None, ge=2)
    """Real images of a class that are looked at, at most, drawn at random; None is all."""
    tolerance: float | None = Field(default=None, gt=0, lt=1)
    """Standard error, as a share of sigma, of a class's mean and standard deviation at which no more of its images are looked at."""

    modes: int = Field(default=1, ge=1, le=MOST_MODES)
    """Gaussians that describe a class, one for each cluster of its clean latents (k-means); the paper has one."""
    rank: int = Field(default=0, ge=0, le=MOST_RANK)
    """Directions in which latents vary most that each Gaussian keeps of its covariance, at most D; the paper keeps none."""

    @model_validator(mode="after")
    def _levels_on_grid(self) -> DistillSettings:
        for name in ("statistics_level", "denoising_level"):
            if getattr(self, name) >= self.steps:
                raise ValueError(f"{name} {getattr(self, name)} is not on a grid of {self.steps} steps")
        if (self.statistics_level == 0) != (self.denoising_level == 0):
            raise ValueError("only groups from the statistics of level 0 are clean latents: both levels are 0, or neither")
        if self.carrying == "forward_noise" and self.statistics_level == 0:
            raise ValueError("forward noise needs a level above 0, where clean latents stand")
        if self.solver == "fixed_point" and self.inversion_stride > 1:
            raise ValueError("inversion_stride is 1 with solver fixed_point, which undoes denoising level by level")
        return self

    def require_no_copies(self) -> None:
        """Refuse to draw the mean of a mode more than once.

        Raises:
            SettingsError: the temperature is 0, and a class has more images than modes.
        """
        if not self.temperature and self.ipc > self.modes:
            raise SettingsError(
                "At temperature 0 every mode of a class draws its mean, and nothing else.",
                found=f"{self.ipc} images of {self.modes} mode(s)",
                hint="give --temperature above 0, or as few images as there are modes.",
            )

    @property
    def method(self) -> str:
        """What a manifest calls sets of these settings: ``d3hr``, ``forward_noise`` or ``latent_gaussian``."""
        if self.statistics_level == 0:
            return "latent_gaussian"
        return "d3hr" if self.carrying == "inversion" else "forward_noise"

    @property
    def inversion_level(self) -> int:
        """Level that inversion climbs to; 0 where nothing is inverted."""
        return self.statistics_level if self.carrying == "inversion" else 0

    @property
    def subsampled(self) -> bool:
        """Whether statistics may come from a part of a class's images."""
        return self.max_images_per_class is not None or self.tolerance is not None

    @property
    def idle(self) -> frozenset[str]:
        """Names of the settings that decide nothing beside the others."""
        unused = set() if self.inversion_level else {"inversion_guidance", "solver", "inversion_stride"}
        return frozenset(unused if self.denoising_level else {*unused, "denoising_guidance"})

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What is as the paper has it is left out, so that sets from before it could be otherwise keep their keys.
        left_out = self.idle | ({"carrying"} if self.carrying == "inversion" else set())
        left_out |= {name for name in ("inversion_stride", "modes", "temperature") if getattr(self, name) == 1}
        left_out |= set() if self.rank else {"rank"}
        left_out |= {name for name in ("max_images_per_class", "tolerance") if getattr(self, name) is None}
        return {name: value for name, value in dump(self).items() if name not in left_out}


STATISTICS_SETTINGS = frozenset(
    {
        "steps",
        "carrying",
        "statistics_level",
        "inversion_guidance",
        "inversion_stride",
        "solver",
        "batch_size",
        "statistics_dtype",
        "max_images_per_class",
        "tolerance",
        "modes",
        "rank",
    },
)
"""The settings that decide the class statistics; the others decide what is drawn from them."""

PRESETS: dict[str, dict[str, Any]] = {
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


def distill_settings(preset: str, *, level: int | Literal["auto"] | None = None, **changes: Any) -> DistillSettings:
    """Return the settings of a preset with changes; a change of None is no change.

    Args:
        preset: one of :data:`PRESETS`.
        level: both levels at once; ``"auto"`` puts the preset's at the same share of the grid, until one is chosen.
        changes: fields of :class:`DistillSettings`.

    Raises:
        SettingsError: the preset or a setting is unknown, out of range, contradicts another, or decides nothing beside the others.
    """
    if preset not in PRESETS:
        raise SettingsError("Unknown preset.", found=repr(preset), hint=f"use one of: {', '.join(PRESETS)}.")
    given = {name: value for name, value in changes.items() if value is not None}
    beside = [name for name in ("statistics_level", "denoising_level") if name in given]
    if level is not None and beside:
        raise SettingsError(
            "--level sets both levels.", found=f"--level beside --{' and --'.join(beside)}", hint="give --level, or the other two."
        )
    if level == "auto" and given.get("carrying") == "forward_noise":
        raise SettingsError("--level auto measures inverted latents.", found="forward noise", hint="give a number.")
    if level == "auto":
        usual = DistillSettings(**PRESETS[preset])
        level = max(1, usual.statistics_level * given.get("steps", usual.steps) // usual.steps)
    if level is not None:
        given |= {"statistics_level": level, "denoising_level": level}
    try:
        settings = DistillSettings(**{**PRESETS[preset], **given})
    except ValidationError as error:
        raise settings_error(error) from None
    unused = sorted(settings.idle & given.keys())
    if unused:
        raise SettingsError(
            f"--{unused[0]} decides nothing here.",
            found=f"statistics at level {settings.statistics_level}, reached by {settings.carrying}",
            hint="leave it out.",
        )
    return settings
