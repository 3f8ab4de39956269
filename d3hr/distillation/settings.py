"""The settings of a distillation, declared once: type, bounds, default and documentation, which is the help of the flags.

Settings that decide the class statistics are kept apart from those that decide what is drawn from them, since one set of statistics serves
many sets of images; so are those that decide which real images are chosen. Names for whole settings are in
:mod:`d3hr.distillation.presets`. :mod:`d3hr.distillation.overrides` derives what the command line, the methods and the recipes take.
"""

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from d3hr.errors import SettingsError

Candidates = Literal["gaussian", "real", "mixed"]
ExactStd = Literal["unbiased", "population"]
ForwardProcess = Literal["inversion", "forward_noise"]
Keep = Literal["all", "easiest", "undoubted"]
Rule = Literal["group", "centre", "margin", "centre_margin", "easiest", "facility", "interval", "separation"]
Skewness = Literal["per_dimension", "per_image"]
Solver = Literal["ddim", "fixed_point", "midpoint"]
Space = Literal["pixel", "latent", "teacher"]
StatisticsDtype = Literal["float32", "float16"]
Store = Literal["images", "statistics"]
Strategy = Literal["search", "exact", "random", "snap"]
Network = Literal["prior", "teacher"]
"""A network that a method may need, by the name of the flag that gives it."""
USUAL_STEPS = 50
"""Points of the sampling grid, unless others are given: the paper's."""


class GroupSettings(BaseModel):
    """How a group of latents is chosen for each class."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ipc: int = Field(default=10, ge=1)
    """images per class"""
    strategy: Strategy = "search"
    """search (the best of many random groups, as in the paper), exact (one group standardised to the moments; of real images, the one of
    lowest score), random (one draw) or, of real images alone, snap (those nearest to a group that exact draws)"""
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
    """ddim (one noise prediction in each step of inversion), fixed_point (the exact inverse of denoising) or, for flows alone, midpoint
    (steps of second order in inversion and denoising, so that a grid of 16 steps does)"""
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


class ChoiceSettings(BaseModel):
    """Which real images are chosen, where a set has real images."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    candidates: Candidates = "gaussian"
    """gaussian (images drawn from the class statistics), real (real images, chosen) or mixed (a share of each)"""
    real_share: float = Field(default=0.5, gt=0, lt=1)
    """share of the images that are real, where candidates are mixed"""
    space: Space = "pixel"
    """what real images are compared by: pixel (small pictures), latent (at the statistics level) or teacher (a teacher's features)"""
    components: int = Field(default=64, ge=0)
    """principal components of each class in which its real images are compared; 0 compares them as they are"""
    keep: Keep = "all"
    """real images to choose from: all of a class, its easiest, or those whose labels are not doubtful"""
    easiest_share: float = Field(default=0.3, gt=0, le=1)
    """share of each class that is its easiest: of which a teacher, or by default networks trained on the other images, are most sure"""
    rule: Rule = "group"
    """group (by the group score and the strategy), centre (medoids of clusters), margin (least sure, without doubtful ones), centre_margin
    (half of each, of sub-clusters), easiest, facility (facility location), interval (evenly by the loss of the prior) or separation (the
    group farthest from other classes)"""
    pack: int = Field(default=1, ge=1, le=8)
    """real images along each side of a stored image: 2 stores four in each, at half the side"""


class DistillSettings(GroupSettings, StatisticsSettings, ChoiceSettings):
    """Everything that decides the pixels of a distilled set, given data, prior and teacher."""

    denoising_level: int = Field(default=31, ge=0)
    """level from which groups are denoised; 0 if the statistics are those of clean latents, and only then"""
    denoising_guidance: float = Field(default=4.0, ge=0)
    """classifier-free guidance scale of denoising"""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        for name in ("statistics_level", "denoising_level"):
            if getattr(self, name) >= self.steps:
                raise ValueError(f"{name} {getattr(self, name)} is not on a grid of {self.steps} steps")
        if self.forward_process == "forward_noise" and self.statistics_level == 0:
            raise ValueError("forward noise needs a level above 0, which is that of clean latents")
        if self.solver == "fixed_point" and self.inversion_stride > 1:
            raise ValueError("inversion_stride is 1 with solver fixed_point, which undoes denoising level by level")
        if self.candidates == "gaussian" and self.strategy == "snap":
            raise ValueError("strategy snap is for real candidates")
        if self.candidates == "real":
            if self.forward_process == "forward_noise":
                raise ValueError("real images are inverted, not noised: forward_process is inversion")
            if self.space != "latent" and self.statistics_level > 0:
                raise ValueError(f"only latents have a level; space {self.space} has none")
            if self.pack > 1 and self.denoising_level > 0:
                raise ValueError("images that are denoised are not packed: pack is 1, or denoising_level 0")
        elif (self.statistics_level == 0) != (self.denoising_level == 0):
            raise ValueError("only groups from the statistics of level 0 are clean latents: both levels are 0, or neither")
        if self.candidates == "mixed":
            if self.pack > 1:
                raise ValueError("mixed sets are not packed")
            if not 0 < self.real_images < self.ipc:
                raise ValueError(f"real_share {self.real_share:g} of {self.ipc} images leaves none for one kind")
        return self

    def require_for(self, store: Store) -> None:
        """Refuse to store statistics alone where images are chosen, and to draw the mean of a mode more than once, at temperature 0."""
        if store == "statistics":
            if self.real_images:
                raise SettingsError(
                    "Statistics are stored of drawn images alone.", found=f"candidates {self.candidates}", hint="leave --store out."
                )
            return
        self.require_no_copies()

    def require_no_copies(self) -> None:
        """Refuse to draw the mean of a mode more than once, at temperature 0."""
        if not self.temperature and self.ipc - self.real_images > self.modes:
            raise SettingsError(
                "At temperature 0 every mode of a class draws its mean, and nothing else.",
                found=f"{self.ipc - self.real_images} images of {self.modes} mode(s)",
                hint="give --temperature above 0, or as few images as there are modes.",
            )

    @property
    def method(self) -> str:
        """The method that a manifest names for sets of these settings.

        ``d3hr``, ``forward_noise`` or ``latent_gaussian`` where images are drawn; ``chosen`` where they are real, ``real_start`` where they
        are real ones that a prior changed, and ``mixed``.
        """
        if self.candidates == "real":
            return "real_start" if self.denoising_level else "chosen"
        if self.candidates == "mixed":
            return "mixed"
        if self.statistics_level == 0:
            return "latent_gaussian"
        return "d3hr" if self.forward_process == "inversion" else "forward_noise"

    @property
    def real_images(self) -> int:
        """Real images of each class in the set, or images that start from real ones; those packed into one image count as one."""
        shares = {"gaussian": 0.0, "real": 1.0, "mixed": self.real_share}
        return round(self.ipc * shares[self.candidates])

    @property
    def generates(self) -> bool:
        """Whether a prior makes the images, all or some; otherwise they are real ones as they are."""
        return self.candidates != "real" or self.denoising_level > 0

    @property
    def needs(self) -> frozenset[Network]:
        """The networks that are needed."""
        teacher = bool(self.real_images) and self.space == "teacher" and "space" not in self.idle
        networks: dict[Network, bool] = {"prior": bool(self.reason_for_prior), "teacher": teacher}
        return frozenset(name for name, needed in networks.items() if needed)

    @property
    def reason_for_prior(self) -> str:
        """What needs a prior, as the subject of a sentence; empty if nothing does."""
        if self.candidates != "real":
            return "Images that are drawn"
        if self.denoising_level:
            return "Images that are denoised"
        if self.rule == "interval":
            return "Images that are ordered by the loss of a prior"
        return "Latents, by which images are compared," if self.space == "latent" and "space" not in self.idle else ""

    def require_networks(self, *, prior: bool, teacher: bool) -> None:
        """Raise :class:`SettingsError` where a network is needed that is not there."""
        if "teacher" in self.needs and not teacher:
            raise SettingsError("The space teacher needs a teacher.", found="none", hint="give one: 'd3hr train-teacher' makes one.")
        if "prior" in self.needs and not prior:
            instead = "" if self.candidates == "real" else ", or choose real images: --candidates real"
            raise SettingsError(f"{self.reason_for_prior} need a prior.", found="none", hint=f"give one ('d3hr fit' makes one){instead}.")

    @property
    def asks_teacher(self) -> bool:
        """Whether a teacher, if there is one, decides what is chosen."""
        return "teacher" in self.needs or self.judges_confidence

    @property
    def judges_confidence(self) -> bool:
        """Whether real images are chosen by how sure networks are of their classes."""
        return bool(self.real_images) and (self.keep != "all" or self.rule in ("margin", "centre_margin", "easiest"))

    @property
    def inversion_level(self) -> int:
        """Level that inversion climbs to; 0 if nothing is inverted."""
        highest = max(self.statistics_level, self.denoising_level) if self.candidates == "real" else self.statistics_level
        return highest if self.forward_process == "inversion" else 0

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
        in_use = {
            **dict.fromkeys(("inversion_guidance", "inversion_stride"), self.inversion_level > 0),
            "solver": self.inversion_level > 0 or (self.solver == "midpoint" and self.denoising_level > 0),
            "sample_seed": self.subsampled,
            "denoising_guidance": self.denoising_level > 0,
            **(self._choice_in_use if self.real_images else dict.fromkeys(ChoiceSettings.model_fields, False)),
        }
        return frozenset(name for name, used in in_use.items() if not used)

    @property
    def _choice_in_use(self) -> dict[str, bool]:
        """Whether settings have an effect where real images are chosen; of those for drawn images, only mixed sets use all."""
        groups = self.rule in ("group", "separation")
        compared = groups or self.rule in ("centre", "centre_margin", "facility")
        of_choice = {"components": compared, "space": compared, "easiest_share": self.keep == "easiest"}
        if self.candidates == "mixed":
            return of_choice
        return {
            **of_choice,
            **dict.fromkeys(("real_share", "statistics_dtype", "tolerance", "rank", "forward_process"), False),
            **dict.fromkeys(("strategy", "weights", "skewness", "modes"), groups),
            **dict.fromkeys(("exact_std", "temperature", "seed_by_class"), groups and self.strategy == "snap"),
            "num_candidates": groups and self.strategy == "search",
            "steps": self.inversion_level > 0 or self.rule == "interval",
            "batch_size": self.denoising_level > 0 or (compared and self.space == "latent") or self.rule == "interval",
        }

    def as_values(self) -> dict[str, Any]:
        """Return the settings that have an effect, as JSON values: what a manifest and the key of a set hold."""
        return self.model_dump(mode="json", exclude=set(self.idle))
