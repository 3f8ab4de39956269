"""The method itself, and what it is when one part is exchanged: sets drawn from one Gaussian a class.

``forward_noise`` takes the statistics of noised latents where d3hr inverts them; ``latent_gaussian`` those of the clean latents, which
are decoded as they are drawn. Grouping is the same. The statistics are made once for all sets that differ in what is drawn from them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from d3hr.distillation.settings import STATISTICS_SETTINGS, Strategy
from d3hr.methods.base import DrawnSettings, Materials, Order
from d3hr.pipeline import distill, expand
from d3hr.sets.distilled_set import DistilledSet


class LatentGaussianOptions(DrawnSettings):
    """A preset of grouping, and what differs from it; None is the preset's."""

    fixed: ClassVar[dict[str, Any]] = {"level": 0}

    strategy: Strategy | None = None
    num_candidates: int | None = None
    weights: tuple[float, float, float] | None = None
    skewness: Literal["per_dimension", "per_image"] | None = None
    exact_std: Literal["unbiased", "population"] | None = None
    temperature: float | None = None
    seed_by_class: bool | None = None
    batch_size: int | None = None
    statistics_dtype: Literal["float32", "float16"] | None = None
    modes: int | None = None
    rank: int | None = None
    max_images_per_class: int | None = None
    tolerance: float | None = None

    def check(self, materials: Materials) -> None:
        """Refuse what a prior cannot draw, and a level that is not on its grid."""
        super().check(materials)
        assert materials.prior is not None
        materials.prior.schedule.path(self.resolved.statistics_level, self.resolved.steps)


class ForwardNoiseOptions(LatentGaussianOptions):
    """A preset, and what differs from it; None is the preset's."""

    fixed: ClassVar[dict[str, Any]] = {"carrying": "forward_noise"}

    level: int | Literal["auto"] | None = None
    steps: int | None = None
    statistics_level: int | None = None
    denoising_level: int | None = None
    denoising_guidance: float | None = None


class DistillOptions(ForwardNoiseOptions):
    """A preset, and what differs from it; None is the preset's."""

    fixed: ClassVar[dict[str, Any]] = {}

    inversion_guidance: float | None = None
    solver: Literal["ddim", "fixed_point", "multistep"] | None = None
    inversion_stride: int | None = None


def write_from_gaussians(order: Order, options: LatentGaussianOptions) -> DistilledSet:
    """Measure the Gaussian of each class, unless ``shared`` has them, and draw a set from them."""
    settings = options.resolved
    values = settings.model_dump(mode="json")
    level = getattr(options, "level", None)
    measured = {name: values[name] for name in STATISTICS_SETTINGS & values.keys()}
    drawn = {name: value for name, value in values.items() if name not in {"ipc", "seed", *STATISTICS_SETTINGS}}
    if level == "auto":
        # The level is chosen with the statistics; where nothing speaks for one, it is the preset's.
        del measured["statistics_level"], drawn["denoising_level"]
        measured |= {"preset": options.preset, "level": "auto"}
    else:
        measured["level"] = measured.pop("statistics_level")
    images, prior, materials = order.images, order.prior, order.materials
    key = {
        "data": images.fingerprint,
        "prior": prior.fingerprint,
        "conditioning": [match.conditioning_id for match in materials.conditioning],
        "settings": measured,
    }
    statistics = distill(
        images,
        prior,
        order.shared_folder("statistics", key),
        store="statistics",
        class_map=materials.class_map,
        progress=order.progress,
        **measured,
    )
    return expand(statistics, prior, order.out, ipc=order.ipc, seed=order.seed, progress=order.progress, **drawn)
