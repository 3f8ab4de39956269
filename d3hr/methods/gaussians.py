"""The method itself, and two with one part replaced: sets drawn from the Gaussians of each class.

``forward_noise`` measures the statistics of noised latents instead of inverted ones; ``latent_gaussian`` those of clean latents, and it
decodes groups as they are drawn. Grouping is the same. The statistics are measured once for all sets that are drawn from them.
"""

from typing import Any, ClassVar, Literal

from d3hr.distillation.overrides import with_fields_of
from d3hr.distillation.presets import DistillOptions, ExpandOptions, GroupOptions
from d3hr.distillation.settings import DistillSettings, StatisticsSettings
from d3hr.methods.base import PriorMethodSettings
from d3hr.methods.job import Job
from d3hr.pipeline import distill, expand
from d3hr.sets.distilled_set import DistilledSet

_CLEAN = {
    *(GroupOptions.__annotations__.keys() - {"seed"}),
    *("batch_size", "statistics_dtype", "max_images_per_class", "tolerance", "sample_seed", "modes", "rank"),
}
"""Settings of a method that works on clean latents."""


@with_fields_of(DistillSettings, _CLEAN)
class LatentGaussianSettings(PriorMethodSettings):
    """Settings of ``latent_gaussian``: a preset, and what differs from it in grouping and in measuring clean latents."""

    fixed: ClassVar[DistillOptions] = {"level": 0}


@with_fields_of(DistillSettings, {"steps", "statistics_level", "denoising_level", "denoising_guidance"})
class ForwardNoiseSettings(LatentGaussianSettings):
    """Settings of ``forward_noise``: a preset, and what differs from it; there is no inversion to set."""

    fixed: ClassVar[DistillOptions] = {"forward_process": "forward_noise"}

    level: int | Literal["auto"] | None = None
    """level of statistics and of denoising"""


@with_fields_of(DistillSettings, {"inversion_guidance", "inversion_stride", "solver"})
class D3hrSettings(ForwardNoiseSettings):
    """Settings of ``d3hr``: a preset, and what differs from it."""

    fixed: ClassVar[DistillOptions] = {}


def write_from_gaussians(job: Job, settings: LatentGaussianSettings) -> DistilledSet:
    """Measure the Gaussian of each class, unless ``shared`` has them, and draw a set from them; a sample of images has the set's seed."""
    resolved = settings.resolved.model_copy(update={"seed": job.seed}).with_sample_seed(job.images.counts.values())
    values = resolved.as_values()
    measured = {name: value for name, value in values.items() if name in StatisticsSettings.model_fields}
    drawn = {name: value for name, value in values.items() if name in ExpandOptions.__annotations__ and name != "seed"}
    if settings.options.get("level") == "auto":
        # The level is chosen with the statistics; if no level is better than another, it is the preset's.
        del measured["statistics_level"], drawn["denoising_level"]
        measured |= {"preset": settings.preset, "level": "auto"}
    else:
        measured["level"] = measured.pop("statistics_level")
    key = {
        "data": job.images.fingerprint,
        "prior": job.prior.fingerprint,
        "conditioning": [match.key for match in job.inputs.conditioning],
        "settings": measured,
    }
    folder = job.shared_folder("statistics", key)
    where: dict[str, Any] = {"execution": job.execution, "progress": job.progress}
    statistics = distill(job.images, job.prior, folder, store="statistics", class_map=job.inputs.class_map, **where, **measured)
    return expand(statistics, job.prior, job.out, ipc=job.ipc, seed=job.seed, **where, **drawn)
