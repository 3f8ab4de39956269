"""Finds the batch size that processes the most images per second within the available memory.

Legend: N images in a batch, C h w latent axes, H = W image side.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from d3hr.distillation.ddim import num_predictions
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import SettingsError
from d3hr.execution.memory import HeldMemory, is_out_of_memory, release_unused
from d3hr.prior.model import Prior
from d3hr.prior.networks import default_device
from d3hr.seeds import generator_for

LEAST_GAIN = 0.05
"""A batch twice as large must process this share more images per second."""
MISSES = 2
"""Sizes in a row without such a gain that end the search; one alone may have been disturbed."""
REPEATS = 3
"""Runs of each size, of which the fastest counts: the first one also initialises the device for that size."""
PATIENCE = 5.0
"""Seconds after which a size is not run again."""


@dataclass(frozen=True)
class BatchTrial:
    """One batch size: seconds of the fastest run, and the most memory held in the first, beyond what was held before all runs."""

    batch_size: int
    seconds: float
    images_per_second: float
    held_bytes: int


@dataclass(frozen=True)
class BatchChoice:
    """A batch size with the measurements that led to it."""

    batch_size: int
    reason: str
    evidence: tuple[BatchTrial, ...]

    def as_text(self) -> str:
        """Return the choice as lines for people."""
        lines = [f"batch size {self.batch_size} chosen: {self.reason}", "batch size   images/s   memory"]
        lines += [
            f"{row.batch_size:10d}  {row.images_per_second:9.1f}  {row.held_bytes / 2**20:7,.0f} MiB"
            f"{'  <' if row.batch_size == self.batch_size else ''}"
            for row in self.evidence
        ]
        return "\n".join(lines)


def find_batch_size(
    run: Callable[[int], float | None],
    *,
    held: Callable[[Callable[[], None]], int],
    largest: int = 1024,
    memory_budget: int | None = None,
    least_gain: float = LEAST_GAIN,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchChoice:
    """Double the batch, starting with one image, while throughput grows enough, and return the last size for which it did.

    If a run of N images takes a + b N seconds, doubling N raises the images per second by the share g as long as
    N <= (1 - g) a / (2 g b).

    Args:
        run: processes a number of images, and returns when it has finished: the seconds that count for them, or None for those it took.
        largest: no larger size is tried.
        memory_budget: bytes that a run may hold. A run of twice as many images is assumed to hold twice as much, and is not tried if that
            exceeds the budget. None tries until the device is out of memory.
        least_gain: share by which twice as many images at once must raise the images per second.
        held: calls a function and returns the most bytes held in it, as :class:`~d3hr.execution.memory.HeldMemory` does.
        clock: returns the time in seconds.

    Raises:
        SettingsError: not even one image fits into the device's memory.
    """
    evidence: list[BatchTrial] = []
    size, misses, reason = 1, 0, f"no more than {largest:,} images at once are asked for"
    while size <= largest and misses < MISSES:
        if evidence and memory_budget is not None and 2 * evidence[-1].held_bytes > memory_budget:
            reason = f"twice as many images at once may need more than {memory_budget / 2**20:,.0f} MiB"
            break
        try:
            trial = _try(run, size, held, clock)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = f"{size:,} images at once do not fit into the device's memory"
            break
        evidence.append(trial)
        before = evidence[-2 - misses] if len(evidence) > 1 else None
        gains = before is None or trial.images_per_second >= (1 + least_gain) ** (misses + 1) * before.images_per_second
        size, misses = 2 * size, 0 if gains else misses + 1
    if not evidence:
        raise SettingsError("The device has too little memory.", found="not even one image fits", hint="use another device or precision.")
    if misses:
        reason = f"twice as many images at once make less than {100 * least_gain:g} % more a second"
    release_unused(default_device().type)  # what the sizes that were not chosen left reserved
    return BatchChoice(evidence[-1 - misses].batch_size, reason, tuple(evidence))


def choose_batch_size(prior: Prior, settings: DistillSettings, *, memory_budget: int | None = None, largest: int = 1024) -> BatchChoice:
    """Find the batch size, at most ``largest``, at which a prior inverts the most images per second.

    Random pixels are encoded, their noise is predicted, with the guidance of inversion, or that of denoising if images are not inverted,
    and as many as are decoded at once, at most ``ipc``, are decoded. Each is measured once, and counts as often as it occurs: encoding once
    an image, predictions once a step, decoding for memory alone, as it is done for few images. A batch may hold ``memory_budget`` bytes
    in addition to the weights; by default half of the available memory on a CPU, and no limit but the device's memory on CUDA.
    """
    if memory_budget is None and prior.device.type != "cuda":
        memory_budget = psutil.virtual_memory().available // 2
    guidance = settings.inversion_guidance if settings.inversion_level else settings.denoising_guidance
    image = torch.rand(1, 3, prior.image_size, prior.image_size, generator=generator_for("batch size")) * 2 - 1
    point = prior.schedule.points(settings.steps)[settings.statistics_level]

    predictions = num_predictions(settings.inversion_level, settings.inversion_stride, settings.solver)

    def run(n: int) -> float:
        start = time.perf_counter()
        latents = prior.encode(image.repeat(n, 1, 1, 1))
        latents.cpu()  # waits for the device
        encoded = time.perf_counter()
        prior.slope(latents, point, prior.denoiser.example, guidance).cpu()
        predicted = time.perf_counter()
        prior.decode(latents[: settings.ipc]).cpu()
        return (encoded - start) + predictions * (predicted - encoded)

    return find_batch_size(run, largest=largest, memory_budget=memory_budget, held=HeldMemory(prior.device))


def _try(
    run: Callable[[int], float | None], size: int, held: Callable[[Callable[[], None]], int], clock: Callable[[], float]
) -> BatchTrial:
    seconds, spent = list[float](), list[float]()

    def once() -> None:
        start = clock()
        counted = run(size)
        spent.append(clock() - start)
        seconds.append(spent[-1] if counted is None else counted)

    held_bytes = held(once)
    while len(spent) < REPEATS and sum(spent) < PATIENCE:
        once()
    return BatchTrial(size, min(seconds), size / min(seconds), held_bytes)
