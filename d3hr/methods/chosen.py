"""Sets with real images that are chosen: as they are, changed by a prior, or next to drawn ones."""

from typing import ClassVar

from d3hr.distillation.overrides import PresetOverrides, with_fields_of
from d3hr.distillation.presets import DistillOptions
from d3hr.distillation.settings import ChoiceSettings, DistillSettings, Network
from d3hr.methods.base import MethodSettings, PriorMethodSettings
from d3hr.methods.gaussians import D3hrSettings
from d3hr.methods.job import Job, MethodInputs
from d3hr.pipeline import distill
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.packing import tile_side

_CHOICE = ChoiceSettings.model_fields.keys() - {"candidates", "real_share"}
"""Settings of which real images are chosen."""
_SPACE = {
    *("strategy", "num_candidates", "weights", "skewness", "exact_std", "temperature", "seed_by_class", "modes"),
    *("max_images_per_class", "sample_seed", "batch_size"),
    *("steps", "statistics_level", "inversion_guidance", "inversion_stride", "solver"),
}
"""Settings of the strategy, and of the space in which images are compared."""


@with_fields_of(DistillSettings, _CHOICE | _SPACE)
class ChosenSettings(MethodSettings, PresetOverrides):
    """Settings of ``chosen``: preset ``real``, and what differs from it."""

    fixed: ClassVar[DistillOptions] = {"candidates": "real"}

    preset: str = "real"
    """the preset that the other settings are changes to"""

    @property
    def needs(self) -> frozenset[Network]:
        """The networks that the space and the rule look through."""
        return self.resolved.needs

    def check(self, inputs: MethodInputs) -> None:
        """Refuse a side that cannot be packed, and a teacher of other classes."""
        tile_side(inputs.image_size, self.resolved.pack)
        if inputs.teacher and self.resolved.asks_teacher:
            inputs.teacher.require_classes(inputs.images.class_names, inputs.images.source)


@with_fields_of(DistillSettings, (_CHOICE | _SPACE | {"denoising_level", "denoising_guidance"}) - {"pack"})
class RealStartSettings(PriorMethodSettings):
    """Settings of ``real_start``: preset ``real``, and what differs from it."""

    fixed: ClassVar[DistillOptions] = {"candidates": "real"}

    preset: str = "real"
    """the preset that the other settings are changes to"""
    denoising_level: int | None = 5
    """level that real images are inverted to, and denoised from"""


@with_fields_of(DistillSettings, (_CHOICE | {"real_share"}) - {"pack"})
class MixedSettings(D3hrSettings):
    """Settings of ``mixed``: a preset of drawn images, and what differs from it."""

    fixed: ClassVar[DistillOptions] = {"candidates": "mixed"}


def write_chosen(job: Job, settings: ChosenSettings | RealStartSettings | MixedSettings) -> DistilledSet:
    """Choose real images; what does not depend on the IPC is kept in the shared folder."""
    real = isinstance(settings, ChosenSettings)
    return distill(
        job.inputs.images,
        job.inputs.prior,
        job.out,
        teacher=job.inputs.teacher,
        ipc=job.ipc,
        image_size=job.inputs.image_size if real else None,
        preset=settings.preset,
        class_map=job.inputs.class_map,
        shared=job.shared,
        execution=job.execution,
        progress=job.progress,
        seed=job.seed,
        **{**settings.options, **settings.fixed},
    )
