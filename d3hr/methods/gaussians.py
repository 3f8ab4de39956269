"""The method itself, and what it is when one part is exchanged: sets drawn from one Gaussian a class.

``forward_noise`` takes the statistics of noised latents where d3hr inverts them; ``latent_gaussian`` those of the clean latents, which
are decoded as they are drawn. Grouping is the same. The statistics are made once for all sets that differ in what is drawn from them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from d3hr.distillation.settings import DistillOptions, DistillSettings, ExpandOptions, GroupOptions, StatisticsSettings, with_fields_of
from d3hr.methods.base import DrawnSettings, Materials, Order
from d3hr.pipeline import distill, expand
from d3hr.sets.distilled_set import DistilledSet

_CLEAN = {
    *(GroupOptions.__annotations__.keys() - {"seed"}),
    *("batch_size", "statistics_dtype", "max_images_per_class", "tolerance", "modes", "rank"),
}
"""Settings of a method that works on clean latents."""


@with_fields_of(DistillSettings, _CLEAN)
class LatentGaussianSettings(DrawnSettings):
    """A preset of grouping, and what differs from it; None is the preset's."""

    fixed: ClassVar[DistillOptions] = {"level": 0}

    def check(self, materials: Materials) -> None:
        """Refuse what a prior cannot draw, and a level that is not on its grid."""
        super().check(materials)
        assert materials.prior is not None
        materials.prior.schedule.path(self.settings.statistics_level, self.settings.steps)


@with_fields_of(DistillSettings, {"steps", "statistics_level", "denoising_level", "denoising_guidance"})
class ForwardNoiseSettings(LatentGaussianSettings):
    """A preset, and what differs from it; None is the preset's."""

    fixed: ClassVar[DistillOptions] = {"forward_process": "forward_noise"}

    level: int | Literal["auto"] | None = None
    """level of statistics and of denoising"""


@with_fields_of(DistillSettings, {"inversion_guidance", "inversion_stride", "solver"})
class D3hrSettings(ForwardNoiseSettings):
    """A preset, and what differs from it; None is the preset's."""

    fixed: ClassVar[DistillOptions] = {}


def write_from_gaussians(order: Order, settings: LatentGaussianSettings) -> DistilledSet:
    """Measure the Gaussian of each class, unless ``shared`` has them, and draw a set from them."""
    values = settings.settings.as_values()
    measured = {name: value for name, value in values.items() if name in StatisticsSettings.model_fields}
    drawn = {name: value for name, value in values.items() if name in ExpandOptions.__annotations__ and name != "seed"}
    if settings.options.get("level") == "auto":
        # The level is chosen with the statistics; where nothing speaks for one, it is the preset's.
        del measured["statistics_level"], drawn["denoising_level"]
        measured |= {"preset": settings.preset, "level": "auto"}
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
