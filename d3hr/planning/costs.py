"""How much work a distillation and its evaluation are, by arithmetic alone.

A *call* is one image going once through one network: a guided prediction is two calls. Networks are called in batches of one class, so
a class of 70 images in batches of 64 makes a batch of 64 and a remainder of 6, which a device processes at another speed.
"""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from d3hr.distillation.estimation import images_needed
from d3hr.distillation.grouping import needs_search
from d3hr.distillation.mixture import clustering_subset
from d3hr.distillation.pool import block_size
from d3hr.distillation.settings import DistillSettings
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.training import TEST_BATCH

FLOAT32, FLOAT64 = 4, 8
"""Bytes of a number on disk, of a number in class statistics in memory."""


def batches_of(count: int, batch_size: int) -> list[int]:
    """Return the sizes of the batches that ``count`` images of one class make."""
    full, rest = divmod(count, batch_size)
    return [batch_size] * full + ([rest] if rest else [])


@dataclass(frozen=True)
class Workload:
    """A distillation and the evaluation of its result, in numbers.

    Attributes:
        counts: real images of each class.
        dimensions: values D of one latent.
        image_size: side H = W of the images, in pixels.
        student_size: side, in pixels, of the images that students see.
        evaluation_runs: students to train.
        keeps_images: whether images are generated; statistics alone need no denoising.
    """

    counts: Mapping[str, int]
    settings: DistillSettings
    dimensions: int
    image_size: int
    student: str
    protocol: Protocol
    student_size: int
    test_images: int
    evaluation_runs: int
    keeps_images: bool = True

    @property
    def distilled(self) -> int:
        """Distilled images; none if only statistics are stored."""
        return len(self.counts) * self.settings.ipc if self.keeps_images else 0

    @property
    def matched_counts(self) -> dict[str, int]:
        """Real images of each class from which statistics are taken: all, or a sample; for a tolerance, as if latents were Gaussian."""
        most, tolerance = self.settings.max_images_per_class, self.settings.tolerance
        return {name: images_needed(count, most=most, tolerance=tolerance) for name, count in self.counts.items()}

    @property
    def matched(self) -> int:
        """Real images from which statistics are taken."""
        return sum(self.matched_counts.values())

    def batches(self, counts: Mapping[str, int]) -> dict[str, list[int]]:
        """Return the sizes of the batches that ``counts`` images of each class make."""
        return {name: batches_of(count, self.settings.batch_size) for name, count in counts.items()}

    @property
    def real_batches(self) -> dict[str, list[int]]:
        """Sizes of the batches in which each class is encoded and inverted."""
        return self.batches(self.matched_counts)

    @property
    def clustered_batches(self) -> dict[str, list[int]]:
        """Sizes of the batches in which images of each class are encoded beforehand, to find its modes; none for one mode."""
        if self.settings.modes == 1:
            return {name: [] for name in self.counts}
        most = self.settings.max_images_per_class
        candidates = {name: images_needed(count, most=most, tolerance=None) for name, count in self.counts.items()}
        return self.batches({name: len(clustering_subset(range(count))) for name, count in candidates.items()})

    @property
    def drawn_batches(self) -> list[int]:
        """Sizes of the batches in which the images of one class are denoised and decoded."""
        return batches_of(self.settings.ipc, self.settings.batch_size) if self.distilled else []

    @property
    def candidates(self) -> int:
        """Candidate groups that are drawn and scored; none if the strategy does not search."""
        return self.settings.num_candidates if needs_search(self.settings) and self.distilled else 0

    @property
    def rank(self) -> int:
        """Loadings of each Gaussian."""
        return min(self.settings.rank, self.dimensions)

    @property
    def coordinates(self) -> int:
        """Standard-normal numbers from which one latent is drawn: D, and one for each loading."""
        return self.dimensions + self.rank

    @property
    def block(self) -> int:
        """Candidate groups that a search draws at once."""
        return block_size(self.settings.ipc, self.coordinates)

    @property
    def statistics(self) -> int:
        """Numbers in the mean, standard deviation and loadings of each mode of each class."""
        return len(self.counts) * self.settings.modes * (2 + self.rank) * self.dimensions

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the pixels of one image; its PNG file is hardly larger."""
        return 3 * self.image_size**2

    @property
    def group_memory(self) -> int:
        """Bytes that a search holds: about four copies of a block of candidates, the scores, and the variances of all classes."""
        if not self.candidates:
            return 0
        block = self.block * self.settings.ipc * self.coordinates
        return FLOAT32 * (4 * block + 3 * self.block * len(self.counts) + self.coordinates * len(self.counts))

    @property
    def training_batch(self) -> int:
        """Mean size of the batches of one epoch of distilled images, rounded; 0 without distilled images."""
        return round(self.distilled / math.ceil(self.distilled / self.protocol.batch_size)) if self.distilled else 0

    @property
    def test_batches(self) -> list[int]:
        """Sizes of the batches in which a student is tested; none if there is no student."""
        return batches_of(self.test_images, TEST_BATCH) if self.distilled else []


def longest_share(work: Iterable[float], devices: int) -> float:
    """Return the load of the busiest of ``devices`` if each piece of work goes to the least busy one, the largest first."""
    loads = [0.0] * devices
    for load in sorted(work, reverse=True):
        heapq.heapreplace(loads, loads[0] + load)
    return max(loads)
