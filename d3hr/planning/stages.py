"""A plan as a value: its stages with their calls, FLOPs and seconds, for people or for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from d3hr.formatting import size_in_words, time_in_words

CHECK, EVALUATE = "check the images", "evaluate"
"""The stages that are not part of the distillation itself."""


@dataclass(frozen=True)
class Stage:
    """One part of the work.

    Attributes:
        name: what it does.
        calls: how often an image goes through a network.
        flops: floating-point operations of these calls.
        seconds: seconds on this device.
        seconds_shared: seconds on as many such devices as the plan is for.
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
        classes: classes.
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
        heading = f"{self.images:,} images of {self.classes:,} classes into {self.distilled:,}, on {self.device}"
        table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", show_footer=True)
        table.add_column("stage", footer="total")
        table.add_column("network calls", justify="right", footer=f"{sum(stage.calls for stage in self.stages):,}")
        table.add_column("TFLOP", justify="right", footer=_tflop(sum(stage.flops for stage in self.stages)))
        table.add_column("time", justify="right", footer=time_in_words(self.seconds))
        if self.devices > 1:
            table.add_column(f"on {self.devices} devices", justify="right", footer=time_in_words(self.seconds_shared))
        for stage in self.stages:
            times = [stage.seconds, stage.seconds_shared] if self.devices > 1 else [stage.seconds]
            table.add_row(stage.name, f"{stage.calls:,}" if stage.calls else "", _tflop(stage.flops), *map(time_in_words, times))
        buffer = StringIO()
        Console(file=buffer, width=100).print(table)
        size = partial(size_in_words, binary=True)
        lines = [
            f"Memory: {size(self.peak_bytes)} at most, {size(self.prior_bytes)} of it the prior's weights, "
            f"{size(self.group_bytes)} while groups are searched.",
            f"Disk: {size(self.image_bytes)} of images, {size(self.statistics_bytes)} of statistics. "
            f"All latents together are {size(self.latent_bytes)}; one batch is held at a time.",
            *(f"Note: {note}." for note in self.notes),
        ]
        return "\n".join([buffer.getvalue().rstrip(), *lines])


def _tflop(flops: int) -> str:
    """Return operations in units of 10^12, with three figures of a small number; nothing for none."""
    if not flops:
        return ""
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
