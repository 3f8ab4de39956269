"""What breaks first as images become more: memory of a machine that runs out, or a stage that takes more than a day."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from d3hr.planning.machines import MOST_IMAGES
from d3hr.planning.scale import Scale

DAY = 86_400.0
"""Seconds that a stage may take."""
_FEWEST = 2
"""Images of a class that statistics need."""


@dataclass(frozen=True)
class Remedy:
    """What is done where a limit is reached.

    Attributes:
        built: whether the code does it; otherwise it is a design.
    """

    words: str
    built: bool


_SHARDS = Remedy("the index in shards: a machine looks at those that it reads, a process holds no others", False)
_SAMPLE = Remedy("a sample of each class (--tolerance, --max-images-per-class)", True)
_SHORTLIST = Remedy("two passes: a shortlist (--max-images-per-class, at random; by quick features it is a design), then exact in it", True)
_NO_SEARCH = Remedy("groups that need no search (--strategy exact)", True)
REMEDIES: Mapping[str, Remedy] = {
    "look at every image": _SHARDS,
    "read what is compared": _SHORTLIST,
    "decode what is compared": _SHORTLIST,
    "choose": _SHORTLIST,
    "read what is inverted": _SAMPLE,
    "decode what is inverted": _SAMPLE,
    "encode and invert": _SAMPLE,
    "give out tasks": Remedy("runs of chunks as one task, merged in the same order", False),
    "merge statistics": Remedy("a merge tree: machines merge their chunks first, in an order that is fixed by position", False),
    "search": _NO_SEARCH,
    "draw": Remedy("more devices: classes are independent", True),
    "write": Remedy("images written where they are drawn", False),
    "memory: index": _SHARDS,
    "memory: search": _NO_SEARCH,
    "memory: choosing": _SHORTLIST,
}
"""Limit -> what is done about it: limits of time have the names of their stages."""


@dataclass(frozen=True)
class Limit:
    """Something that there is only so much of.

    Attributes:
        need: seconds, or bytes of memory of a machine.
        allowed: the most.
        images: the number that it breaks at, with the classes and machines of the plan; None if that is above ``MOST_IMAGES``.
    """

    name: str
    need: float
    allowed: float
    images: int | None
    remedy: Remedy

    @property
    def broken(self) -> bool:
        """Whether the plan needs more than there is."""
        return self.need > self.allowed


def limits(scale: Scale) -> list[Limit]:
    """Return every limit, the one that breaks first before all others."""
    found = []
    for name, need in needs(scale).items():
        allowed = scale.machines.node_memory if name.startswith("memory") else DAY
        found.append(Limit(name, need, allowed, breaking_point(scale, name, allowed), REMEDIES[name]))
    return sorted(found, key=lambda limit: (limit.images or math.inf, -limit.need / limit.allowed))


def needs(scale: Scale) -> dict[str, float]:
    """Return what the plan needs of everything: seconds of stages, and bytes of memory in one machine."""
    processes = scale.machines.devices_per_node
    memory = {
        "memory: index": (processes + 1) * scale.index_bytes,  # each process its own, and the copy that they are sent
        "memory: search": processes * scale.search_bytes,
        "memory: choosing": processes * scale.features_bytes,
    }
    seconds = {stage.name: stage.seconds for stage in scale.stages()}
    return {**seconds, **{name: float(value) for name, value in memory.items() if value}}


def breaking_point(scale: Scale, name: str, allowed: float) -> int | None:
    """Return the least number of images, to three figures, at which more is needed than is allowed; None if above ``MOST_IMAGES``."""

    def breaks(exponent: float) -> bool:
        return needs(replace(scale, images=round(10**exponent)))[name] > allowed

    low, high = math.log10(_FEWEST * scale.classes), math.log10(MOST_IMAGES)
    if not breaks(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if breaks(middle) else (middle, high)
    return int(float(f"{10**high:.3g}"))
