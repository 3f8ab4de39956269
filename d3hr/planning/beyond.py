"""The plan of a distillation of data that are not at hand, on machines that are not either: stages, memory, and what breaks first."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Unpack

from d3hr.distillation.presets import DistillOptions, distill_settings
from d3hr.errors import SettingsError, require_at_least
from d3hr.formatting import size_in_words, table, time_in_words
from d3hr.planning.counting import prior_needs
from d3hr.planning.limits import DAY, Limit, limits
from d3hr.planning.machines import THESE_MACHINES, Machines
from d3hr.planning.rates import measured_rates
from d3hr.planning.scale import Scale, ScaleStage
from d3hr.planning.shapes import PriorShape
from d3hr.prior.networks import default_device
from d3hr.seeds import seeded

NEAREST = 3
"""Limits that are shown though they hold."""


@dataclass(frozen=True)
class ScalePlan:
    """What a distillation will cost that is too large for one machine.

    Attributes:
        scale: the question and the rates.
        stages: the parts of the work, in order.
        limits: what there is only so much of, the one that breaks first before all others.
    """

    scale: Scale
    stages: tuple[ScaleStage, ...]
    limits: tuple[Limit, ...]

    @property
    def seconds(self) -> float:
        """Seconds of all phases, as the code runs them: the stages of a phase overlap."""
        return self._total({stage.name: stage.seconds for stage in self.stages})

    @property
    def designed(self) -> float:
        """Seconds of all phases if everything were shared."""
        return self._total({stage.name: stage.designed for stage in self.stages})

    @property
    def longest(self) -> ScaleStage:
        """The stage that takes longest."""
        return max(self.stages, key=lambda stage: stage.seconds)

    @property
    def broken(self) -> list[Limit]:
        """What breaks, the first before all others."""
        return [limit for limit in self.limits if limit.broken]

    def _total(self, seconds: dict[str, float]) -> float:
        phases = defaultdict[int, float](float)
        for stage in self.stages:
            phases[stage.phase] = max(phases[stage.phase], seconds[stage.name])
        return sum(phases.values())

    @property
    def bytes(self) -> dict[str, int]:
        """What is held and sent, in bytes: the index and others per process, statistics in all."""
        scale = self.scale
        return {
            "index_per_process": scale.index_bytes,
            "statistics": scale.statistics_bytes,
            "statistics_of_a_chunk": scale.chunk_bytes if scale.drawn else 0,
            "merged": scale.classes * scale.chunks.chunks * scale.chunk_bytes if scale.drawn else 0,
            "search_per_process": scale.search_bytes,
            "choosing_per_process": scale.features_bytes,
        }

    def as_values(self) -> dict[str, Any]:
        """Return everything as JSON values: seconds, bytes, images."""
        scale = self.scale
        return {
            "images": scale.images,
            "classes": scale.classes,
            "devices": scale.devices,
            "distilled": scale.classes * scale.settings.ipc,
            "machines": asdict(scale.machines),
            "rates": asdict(scale.rates),
            "stages": [asdict(stage) for stage in self.stages],
            "seconds": self.seconds,
            "designed": self.designed,
            "bytes": self.bytes,
            "limits": [{**asdict(limit), "broken": limit.broken} for limit in self.limits],
        }

    def as_text(self) -> str:
        """Return a table of the stages, lines on memory, and a table of what breaks first."""
        scale, rates = self.scale, self.scale.rates
        title = (
            f"{scale.images:,} images of {scale.classes:,} classes into {scale.classes * scale.settings.ipc:,}, on {scale.devices:,} "
            f"devices in {scale.nodes:,} machine(s)"
        )
        rows = [[stage.name, stage.who, stage.work, *map(time_in_words, (stage.seconds, stage.designed))] for stage in self.stages]
        totals = ["total", "", "phases one after another", time_in_words(self.seconds), time_in_words(self.designed)]
        stages = table(["stage", "by", "work", "time", "if shared"], rows, right=(3, 4), title=title, totals=totals)
        sizes = {name.replace("_", " "): size_in_words(count) for name, count in self.bytes.items() if count}
        shown = [*self.broken, *[limit for limit in self.limits if not limit.broken][:NEAREST]]
        breaking = table(
            ["what breaks first", "needs", "has", "breaks at images", "what is done then", "in the code"],
            [_limit_in_words(limit) for limit in shown],
            right=(1, 2, 3),
            title="",
        )
        lines = [
            f"Longest: {self.longest.name}, by {self.longest.who}. Stages that overlap count as the longest of them.",
            f"Bytes: {'; '.join(f'{name} {size}' for name, size in sizes.items())}.",
            f"A device: {rates.device_flops:.3g} operations a second ({rates.device}). A core, measured here: "
            f"{1000 * rates.look:.1f} ms to look at an image, {1000 * rates.decode:.1f} ms to decode and resize it.",
            f"Broken is what needs more than {time_in_words(DAY)}, or more memory than a machine has. 'If shared' and what is not in the "
            "code is a design.",
        ]
        return "\n".join([stages, *lines, breaking])


def plan_beyond(
    images: int,
    classes: int,
    shape: PriorShape,
    *,
    devices: int = 1,
    ipc: int = 10,
    preset: str = "paper",
    machines: Machines = THESE_MACHINES,
    **options: Unpack[DistillOptions],
) -> ScalePlan:
    """Predict what distilling data will cost that are not at hand, from counts and some seconds of measuring on this machine.

    Args:
        images: real images, in classes of equal size.
        classes: classes.
        shape: the shape of the prior.
        devices: devices that share the work.
        ipc: distilled images per class.
        preset: preset of the distillation.
        machines: the machines; by default as :class:`~d3hr.planning.machines.Machines` says.
        options: settings that differ from the preset's, as for :func:`d3hr.distill`.

    Raises:
        SettingsError: a setting is unknown or out of range, or classes have fewer than two images.
    """
    settings = distill_settings(preset, ipc=ipc, **options)
    require_at_least("--classes", classes, 2)
    require_at_least("--devices", devices)
    if images < 2 * classes:
        raise SettingsError(
            "Each class needs at least two images.", found=f"--images {images:,} and --classes {classes:,}", hint="give more images."
        )
    for name, value in asdict(machines).items():
        if value is not None and not value > 0:
            raise SettingsError(f"--{name.replace('_', '-')} is above zero.", found=f"{value:g}", hint="leave it out.")
    if shape.condition.key is None:  # given nothing of a class, it is not guided
        settings = settings.model_copy(update={"inversion_guidance": 1.0, "denoising_guidance": 1.0})
    needs = prior_needs(shape)
    with seeded(0, default_device()):
        rates = measured_rates(shape, needs, settings, machines)
    return at_scale(Scale(images, classes, devices, settings, shape.dimensions, shape.image_size, needs, machines, rates))


def at_scale(scale: Scale) -> ScalePlan:
    """Return the plan that follows from counts and rates."""
    return ScalePlan(scale, tuple(scale.stages()), tuple(limits(scale)))


def _limit_in_words(limit: Limit) -> list[str]:
    in_words = size_in_words if limit.name.startswith("memory") else time_in_words
    at = "-" if limit.images is None else f"{limit.images:.3g}"
    return [limit.name, in_words(limit.need), in_words(limit.allowed), at, limit.remedy.words, "yes" if limit.remedy.built else "no"]
