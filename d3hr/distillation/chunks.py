"""Chunks of classes, the tasks in which statistics are measured, and how what was measured is put together.

A chunk is made when its turn comes, and what was measured of it is merged as soon as all before it have been: the process that gives out
the work holds nothing per chunk, however many there are. The order of merging is that of the chunks, whoever is ready first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from d3hr.distillation.estimation import StandardError
from d3hr.distillation.mixture import ClassMixture


@dataclass(frozen=True)
class ClassChunk:
    """Images ``start`` to ``stop`` of one class, in the order in which they are looked at."""

    class_name: str
    start: int
    stop: int

    @property
    def num_images(self) -> int:
        """Images of the chunk; fewer are looked at where the tolerance is reached before."""
        return self.stop - self.start


class Division(NamedTuple):
    """A number of images, at least one, in chunks of equal size, of which the last may be smaller."""

    images: int
    size: int

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.images // self.size)


class ClassChunks(Sequence[ClassChunk]):
    """The chunks of some classes, one class after the other.

    Args:
        divisions: class -> how its images are divided.
    """

    def __init__(self, divisions: Mapping[str, Division]) -> None:
        self._names, self._divisions = list(divisions), list(divisions.values())
        self._ends = np.cumsum([division.chunks for division in self._divisions], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> ClassChunk:  # type: ignore[override]
        index = range(len(self))[index]
        place = int(np.searchsorted(self._ends, index, side="right"))
        images, size = self._divisions[place]
        start = (index - int(self._ends[place]) + self._divisions[place].chunks) * size
        return ClassChunk(self._names[place], start, min(start + size, images))


@dataclass(frozen=True)
class ChunkStatistics:
    """The statistics of the images seen of a class, and their standard error where these are a sample."""

    mixture: ClassMixture
    error: StandardError

    def merge(self, following: ChunkStatistics) -> ChunkStatistics:
        """Return the statistics of two chunks of a class; a class of several chunks is seen whole, without error."""
        return ChunkStatistics(self.mixture.merge(following.mixture), StandardError(0.0, 0.0))


@dataclass
class MergedChunks:
    """The statistics of the chunks of one class that have come, merged in the order of the chunks.

    Attributes:
        merged: statistics of the first ``images`` images.
        images: how many they are of.
    """

    merged: ChunkStatistics | None = None
    images: int = 0
    _waiting: dict[int, tuple[int, ChunkStatistics]] = field(default_factory=dict)

    def add(self, chunk: ClassChunk, statistics: ChunkStatistics) -> None:
        """Take what was measured of a chunk; it is held only until all chunks before it have come."""
        self._waiting[chunk.start] = chunk.stop, statistics
        while self.images in self._waiting:
            self.images, following = self._waiting.pop(self.images)
            self.merged = following if self.merged is None else self.merged.merge(following)

    @property
    def held(self) -> int:
        """Chunks that wait for one before them."""
        return len(self._waiting)
