"""A distillation of any number of images on any number of machines, in numbers that follow from counts and rates alone.

Classes are taken to have equally many images. Of each stage there are two figures: as the code runs it, and as it would be if what one
machine or process does now were shared among all, a design that is not built.

Legend: N images in all, C classes, n images of a class, K images of a class in the set, D dimensions of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from d3hr.data.ahead import MOST_DECODERS
from d3hr.distillation.chunks import Division
from d3hr.distillation.ddim import calls_per_prediction, num_predictions
from d3hr.distillation.estimation import images_needed
from d3hr.distillation.grouping import needs_search
from d3hr.distillation.mixture import clustering_subset
from d3hr.distillation.pool import BLOCK_VALUES, BLOCKS_PER_TASK, block_size, number_of_blocks
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import division
from d3hr.formatting import size_in_words
from d3hr.planning.costs import FLOAT32, FLOAT64
from d3hr.planning.counting import PriorNeeds
from d3hr.planning.machines import Machines
from d3hr.planning.probe import ASSUMED_PREDICTIONS
from d3hr.planning.rates import SMALL_FEATURES, Rates

TASKS_PER_DEVICE = 100
"""Tasks of a stage that a device gets, in the design: few enough for one process to give out, many enough to even out."""
INDEX_BYTES, NAME_BYTES = 40, 32
"""Bytes that a process holds of each image of a folder: label, place, digest, stamp and the end of its name; and the name, this long."""

Who = Literal["one machine", "every machine", "every core", "every device", "one process"]


@dataclass(frozen=True)
class ScaleStage:
    """One part of the work.

    Attributes:
        phase: number of the phase; the stages of a phase run at the same time, and the longest decides.
        who: who does it now.
        work: how much it is, in words.
        seconds: as the code runs it.
        designed: as it would be if it were shared among all machines.
    """

    name: str
    phase: int
    who: Who
    work: str
    seconds: float
    designed: float


@dataclass(frozen=True)
class Scale:
    """The question: so many images and classes, on so many devices.

    Attributes:
        dimensions: values D of a latent.
        image_size: side of the images, in pixels.
    """

    images: int
    classes: int
    devices: int
    settings: DistillSettings
    dimensions: int
    image_size: int
    needs: PriorNeeds
    machines: Machines
    rates: Rates

    @property
    def nodes(self) -> int:
        """Machines, the last perhaps in part used."""
        return math.ceil(self.devices / self.machines.devices_per_node)

    @property
    def cores(self) -> int:
        """CPU cores of all machines."""
        return self.nodes * self.machines.cores_per_node

    @property
    def per_class(self) -> int:
        """Images n of a class."""
        return math.ceil(self.images / self.classes)

    @property
    def drawn(self) -> int:
        """Images of a class that are drawn."""
        return self.settings.ipc - self.settings.real_images

    @property
    def matched(self) -> int:
        """Images of a class from which statistics are taken; none where all images of the set are real."""
        settings = self.settings
        return images_needed(self.per_class, most=settings.max_images_per_class, tolerance=settings.tolerance) if self.drawn else 0

    @property
    def compared(self) -> int:
        """Images of a class among which real ones are chosen."""
        most = self.settings.max_images_per_class
        return (self.per_class if most is None else min(most, self.per_class)) if self.settings.real_images else 0

    @property
    def chunks(self) -> Division:
        """How a class is divided into tasks: as many images of it as are looked at."""
        return Division(self.matched, min(division(self.per_class, self.settings).size, self.matched))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the statistics of a chunk, as they travel."""
        return FLOAT64 * self.settings.modes * (2 + 2 * min(self.settings.rank, self.dimensions)) * self.dimensions

    @property
    def statistics_bytes(self) -> int:
        """Bytes of the statistics of all classes on disk, at their one level: mean, standard deviation and loadings of each mode."""
        rank = min(self.settings.rank, self.dimensions)
        return FLOAT32 * self.classes * self.settings.modes * (2 + rank) * self.dimensions if self.drawn else 0

    @property
    def index_bytes(self) -> int:
        """Bytes of the index of all images, which every process holds."""
        return self.images * (INDEX_BYTES + NAME_BYTES)

    @property
    def search_bytes(self) -> int:
        """Bytes that a process holds while groups are searched: the variances of all classes, four blocks, and three terms of scores."""
        if not (self.drawn and needs_search(self.settings)):
            return 0
        coordinates = self._coordinates
        block = block_size(self.settings.ipc, coordinates)
        return FLOAT32 * (coordinates * self.classes + 4 * BLOCK_VALUES + 3 * min(block * self.classes, BLOCK_VALUES))

    @property
    def features_bytes(self) -> int:
        """Bytes that a process holds while it chooses: the points of one class, of which principal components take two more copies."""
        return 3 * FLOAT64 * self.compared * SMALL_FEATURES

    def stages(self) -> Sequence[ScaleStage]:
        """Return the parts of the work that there are."""
        return [*self._looking(), *self._choosing(), *(self._measuring() if self.drawn else []), *self._drawing()]

    @property
    def _coordinates(self) -> int:
        return self.dimensions + min(self.settings.rank, self.dimensions)

    def _on_devices(self, tasks: int, flops: float) -> float:
        """Return the seconds of so many tasks of so many operations each: no device can help with the task of another."""
        return math.ceil(tasks / self.devices) * flops / self.rates.device_flops

    def _looking(self) -> list[ScaleStage]:
        machines, count = self.machines, self.images
        threads = min(MOST_DECODERS, machines.cores_per_node)
        alone = count * max(self.rates.look / threads, machines.image_bytes / machines.storage_rate)
        shared = count * max(self.rates.look / self.cores, machines.image_bytes / machines.storage_rate / self.nodes)
        return [ScaleStage("look at every image", 1, "one machine", size_in_words(count * machines.image_bytes), alone, shared)]

    def _reading(self, name: str, phase: int, images: int) -> list[ScaleStage]:
        machines = self.machines
        reading = images * machines.image_bytes / machines.storage_rate / self.nodes
        decoding = images * self.rates.decode / self.cores
        size = size_in_words(images * machines.image_bytes)
        return [
            ScaleStage(f"read {name}", phase, "every machine", size, reading, reading),
            ScaleStage(f"decode {name}", phase, "every core", f"{images:,} images", decoding, decoding),
        ]

    def _choosing(self) -> list[ScaleStage]:
        if not self.compared:
            return []
        rounds = math.ceil(self.classes / self.devices) * self.compared * self.rates.choose
        return [
            *self._reading("what is compared", 2, self.classes * self.compared),
            ScaleStage("choose", 2, "every device", f"{self.classes:,} classes", rounds, rounds),
        ]

    def _measuring(self) -> list[ScaleStage]:
        settings, machines, needs = self.settings, self.machines, self.needs
        images, chunks = self.classes * self.matched, self.classes * self.chunks.chunks
        steps = num_predictions(settings.inversion_level, settings.inversion_stride, settings.solver)
        predictions = steps * (ASSUMED_PREDICTIONS if settings.solver == "fixed_point" else 1)
        one = needs.encoder.flops + predictions * calls_per_prediction(settings.inversion_guidance) * needs.network.flops
        clustered = len(clustering_subset(range(self.matched))) * needs.encoder.flops if settings.modes > 1 else 0
        inverting = self._on_devices(chunks, self.chunks.size * one + clustered)
        traffic = chunks * self.chunk_bytes / machines.network_rate
        merging = chunks * self.rates.merge
        fewer = min(chunks, TASKS_PER_DEVICE * self.devices)
        merged = self.classes * (self.rates.merge + self.chunk_bytes / machines.network_rate) + (traffic + merging) / self.nodes
        return [
            *self._reading("what is inverted", 3, images),
            ScaleStage("encode and invert", 3, "every device", f"{images * one:.1e} operations", inverting, inverting),
            ScaleStage("give out tasks", 3, "one process", f"{chunks:,} tasks", *(n * machines.task_seconds for n in (chunks, fewer))),
            ScaleStage("merge statistics", 3, "one process", size_in_words(chunks * self.chunk_bytes), max(merging, traffic), merged),
        ]

    def _drawing(self) -> list[ScaleStage]:
        settings, needs, stages = self.settings, self.needs, list[ScaleStage]()
        if self.search_bytes:
            blocks = number_of_blocks(settings, self._coordinates)
            values = min(blocks, BLOCKS_PER_TASK) * BLOCK_VALUES
            products = 2 * 2 * settings.num_candidates / blocks * min(blocks, BLOCKS_PER_TASK) * self._coordinates * self.classes
            rounds = math.ceil(math.ceil(blocks / BLOCKS_PER_TASK) / self.devices)
            searching = rounds * (values / self.rates.noise + products / self.rates.device_flops)
            stages.append(ScaleStage("search", 4, "every device", f"{settings.num_candidates:,} groups", searching, searching))
        if self.drawn:
            predictions = num_predictions(settings.denoising_level, solver=settings.solver)
            one = predictions * calls_per_prediction(settings.denoising_guidance) * needs.network.flops + needs.decoder.flops
            drawing = self._on_devices(self.classes, self.drawn * one)
            stages.append(ScaleStage("draw", 5, "every device", f"{self.classes * self.drawn:,} images", drawing, drawing))
        images = self.classes * settings.ipc
        writing = images * self.rates.write / min(MOST_DECODERS, self.machines.cores_per_node)
        stages.append(ScaleStage("write", 5, "one process", f"{images:,} images", writing, writing / self.nodes))
        return stages
