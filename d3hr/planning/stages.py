"""A plan as a value: its stages with their calls, FLOPs and seconds, for people or for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

BEFORE, AFTER = "check the images", "evaluate"
"""The stages that a distillation itself does not contain."""


@dataclass(frozen=True)
class Stage:
    """One part of the work.

    Attributes:
        name: what is done.
        calls: how often an image goes through a network.
        flops: floating-point operations of these calls.
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
        devices: how many such devices the work is shared out over.
        images: real images.
        classes: classes.
        distilled: distilled images.
        stages: the parts of the work, in order.
        latent_bytes: the latents of all real images, of which one batch exists at a time.
        statistics_bytes: the class statistics on disk.
        image_bytes: the pixels of the distilled images, about the size of their files at most.
        prior_bytes: the weights of the prior.
        group_bytes: what the group search holds in memory.
        peak_bytes: memory at its most, of the process; on CUDA, of the tensors on the device.
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
        """Seconds of everything on this device."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def seconds_shared(self) -> float:
        """Seconds of everything on ``devices`` such devices."""
        return sum(stage.seconds_shared for stage in self.stages)

    @property
    def distillation_seconds(self) -> float:
        """Seconds on this device from images that have been checked to a set on disk."""
        return sum(stage.seconds for stage in self.stages if stage.name not in (BEFORE, AFTER))

    def as_values(self) -> dict[str, Any]:
        """Return everything as JSON values: seconds, bytes, floating-point operations."""
        return {
            **asdict(self),
            "stages": [asdict(stage) for stage in self.stages],
            "notes": list(self.notes),
            "seconds": self.seconds,
            "seconds_shared": self.seconds_shared,
            "distillation_seconds": self.distillation_seconds,
        }

    def as_text(self) -> str:
        """Return a table of the stages and lines on memory and disk, in units that people read."""
        heading = f"{self.images:,} images of {self.classes:,} classes into {self.distilled:,}, on {self.device}"
        table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", show_footer=True)
        table.add_column("stage", footer="total")
        table.add_column("network calls", justify="right", footer=f"{sum(stage.calls for stage in self.stages):,}")
        table.add_column("TFLOP", justify="right", footer=human_tflop(sum(stage.flops for stage in self.stages)))
        table.add_column("time", justify="right", footer=human_time(self.seconds))
        if self.devices > 1:
            table.add_column(f"on {self.devices} devices", justify="right", footer=human_time(self.seconds_shared))
        for stage in self.stages:
            times = [human_time(stage.seconds), *([human_time(stage.seconds_shared)] if self.devices > 1 else [])]
            table.add_row(stage.name, f"{stage.calls:,}" if stage.calls else "", human_tflop(stage.flops), *times)
        buffer = StringIO()
        Console(file=buffer, width=100).print(table)
        lines = [
            f"Memory: {human_bytes(self.peak_bytes)} at most, {human_bytes(self.prior_bytes)} of it the prior's weights, "
            f"{human_bytes(self.group_bytes)} while groups are searched.",
            f"Disk: {human_bytes(self.image_bytes)} of images, {human_bytes(self.statistics_bytes)} of statistics. "
            f"All latents together are {human_bytes(self.latent_bytes)}; one batch is held at a time.",
            *(f"Note: {note}." for note in self.notes),
        ]
        return "\n".join([buffer.getvalue().rstrip(), *lines])


def human_time(seconds: float) -> str:
    """Return a duration in the unit that people would choose: 0.2 s, 42 s, 3.5 min, 7.1 h, 12.0 days."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.{1 if seconds / size < 10 else 0}f} {unit}"
    return f"{seconds / 86400:,.1f} days"


def human_bytes(count: int) -> str:
    """Return a number of bytes in binary units: 512 B, 3.0 KiB, 1.2 GiB."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def human_tflop(flops: int) -> str:
    """Return operations in units of 10^12, with three figures of a small number; nothing for none."""
    if not flops:
        return ""
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
