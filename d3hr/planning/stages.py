"""A plan as a value: its stages with their calls, FLOPs and seconds, for people or for machines."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from d3hr.formatting import size_in_words, table, time_in_words

CHECK, EVALUATE = "check the images", "evaluate"
"""The stages that are not part of the distillation itself."""


@dataclass(frozen=True)
class Stage:
    """One part of the work: how often an image goes through a network, the operations of these calls, and seconds.

    Attributes:
        seconds: on this device.
        seconds_shared: on as many such devices as the plan is for.
    """

    name: str
    calls: int
    flops: int
    seconds: float
    seconds_shared: float


@dataclass(frozen=True)
class Plan:
    """What a distillation and its evaluation will cost.

    Attributes:
        device: what was measured.
        devices: number of such devices that share the work.
        images: real images.
        distilled: distilled images.
        stages: the parts of the work, in order.
        latent_bytes: the latents of all real images, of which one batch exists at a time.
        statistics_bytes: the class statistics on disk.
        image_bytes: the pixels of the distilled images, about the size of their files at most.
        prior_bytes: the weights of the prior.
        group_bytes: what the group search holds in memory.
        peak_bytes: largest memory of the process; on CUDA, of the tensors on the device.
        notes: what was assumed.
    """

    device: str
    devices: int
    images: int
    classes: int
    distilled: int
    stages: tuple[Stage, ...]
    latent_bytes: int
    statistics_bytes: int
    image_bytes: int
    prior_bytes: int
    group_bytes: int
    peak_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of all stages on this device."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def seconds_shared(self) -> float:
        """Seconds of all stages on ``devices`` such devices."""
        return sum(stage.seconds_shared for stage in self.stages)

    @property
    def distillation_seconds(self) -> float:
        """Seconds on this device from images that have been checked to a set on disk."""
        return sum(stage.seconds for stage in self.stages if stage.name not in (CHECK, EVALUATE))

    def as_values(self) -> dict[str, Any]:
        """Return everything as JSON values: seconds, bytes, floating-point operations."""
        totals = {"seconds": self.seconds, "seconds_shared": self.seconds_shared, "distillation_seconds": self.distillation_seconds}
        return asdict(self) | totals

    def as_text(self) -> str:
        """Return a table of the stages and lines on memory and disk, in units for people."""
        title = f"{self.images:,} images of {self.classes:,} classes into {self.distilled:,}, on {self.device}"
        headings = ["stage", "network calls", "TFLOP", "time"]
        calls, flops = sum(stage.calls for stage in self.stages), sum(stage.flops for stage in self.stages)
        totals = ["total", f"{calls:,}", _tflop(flops), time_in_words(self.seconds)]
        rows = [
            [stage.name, f"{stage.calls:,}" if stage.calls else "", _tflop(stage.flops), time_in_words(stage.seconds)]
            for stage in self.stages
        ]
        if self.devices > 1:
            headings.append(f"on {self.devices} devices")
            totals.append(time_in_words(self.seconds_shared))
            rows = [[*row, time_in_words(stage.seconds_shared)] for row, stage in zip(rows, self.stages, strict=True)]
        size = partial(size_in_words, binary=True)
        lines = [
            f"Memory: {size(self.peak_bytes)} at most, {size(self.prior_bytes)} of it the prior's weights, "
            f"{size(self.group_bytes)} while groups are searched.",
            f"Disk: {size(self.image_bytes)} of images, {size(self.statistics_bytes)} of statistics. "
            f"All latents together are {size(self.latent_bytes)}; one batch is held at a time.",
            *(f"Note: {note}." for note in self.notes),
        ]
        return "\n".join([table(headings, rows, right=range(1, len(headings)), title=title, totals=totals), *lines])


def _tflop(flops: int) -> str:
    """Return operations in units of 10^12, with three figures of a small number; nothing for none."""
    if not flops:
        return ""
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
