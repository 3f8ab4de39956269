"""Trains one network in place: steps, learning rate, averaged weights, time limit, and checkpoints that continue to the same weights.

The networks of a prior, students and teachers are all trained by :class:`Trainer`. Batch and noise of a step follow from (seed, step)
alone, so a checkpoint holds no random state: weights, their averages, the optimiser's moments and the number of steps are enough.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from d3hr.data.transfer import pinned
from d3hr.errors import DamagedFile, NumericalError
from d3hr.fileio.atomic import load_if_valid, read_checkpoint, write_tensors
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for

CHECKPOINT_SECONDS = 30.0
"""Seconds between two checkpoints; where saving one takes s > 1 seconds, s times as many."""
_CURVE_POINTS = 200
_READ_EVERY = 50
"""Steps after which losses are read from the device, which waits for it, and checked; also before a checkpoint and at curve points."""
Batch = TypeVar("Batch")

# cuBLAS gives the same bits only with a workspace of fixed size, and PyTorch looks for that setting at the first product of a process and
# never again: it is made when networks are first imported, not when they are trained.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@dataclass
class Curve:
    """The loss of a training: ``points`` are (steps done, mean loss since the point before); ``seconds`` and ``steps`` are in all."""

    points: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0


def warm_up(step: int, length: float) -> float:
    """Return the share of the learning rate, 0 to 1, at a step (from 0) of a linear rise over ``length`` steps; 1 from then on."""
    return min(1.0, (step + 1) / length) if length else 1.0


def decay(schedule: Literal["cosine", "half_cosine", "step"], done: float, total: float) -> float:
    """Return the share of the learning rate, 0 to 1, that holds at time ``done`` of ``total``.

    ``cosine`` is 0.5 (1 + cos(pi done / total)); ``half_cosine`` 0.5 (1 + cos(pi done / (2 total))); ``step`` 1 in the first half and 0.1
    in the second.
    """
    if schedule == "step":
        return 1.0 if 2 * done < total else 0.1
    return 0.5 * (1 + math.cos(math.pi * done / (total if schedule == "cosine" else 2 * total)))


def endless_batches(size: int, batch_size: int, seed: int) -> Callable[[int], Tensor]:
    """Return a function from step to positions, int64 [batch_size], in a data set of ``size`` images.

    The batches cut an endless stream, so one may span two epochs; each epoch visits every image once, in a seeded order of its own.
    """
    order = lru_cache(maxsize=2)(lambda epoch: torch.randperm(size, generator=generator_for(seed, "epoch", epoch)))

    def positions(step: int) -> Tensor:
        places = range(step * batch_size, (step + 1) * batch_size)
        return torch.stack([order(place // size)[place % size] for place in places])

    return positions


def even_batches(size: int, batch_size: int, seed: int, of_each: int = 1) -> Callable[[int], Tensor]:
    """Return a function from step to positions, int64 [n <= batch_size], in a data set of ``size`` stored images.

    Each epoch visits every image once, in a seeded order of its own, in ceil(size / batch_size) batches whose sizes differ by at most 1.
    Where every stored image holds ``of_each`` pictures, positions are of pictures, and so many epochs visit each of them once: epochs have
    as many steps and batches as many pictures as if each stored image held one.
    """
    steps = of_each * math.ceil(size / batch_size)

    @lru_cache(maxsize=2)
    def batches(epoch: int) -> tuple[Tensor, ...]:
        return torch.randperm(of_each * size, generator=generator_for(seed, "order", epoch)).tensor_split(steps)

    return lambda step: batches(step // steps)[step % steps]


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Let CUDA compute by algorithms that give the same bits each time, inside the context; other devices do so anyway.

    Where PyTorch has no such algorithm for an operation, or as for attention takes none unless errors replace warnings, it warns, and the
    weights of a second training may differ in their last bits.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    of_cudnn = cudnn.benchmark, cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = of_cudnn
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@dataclass
class Trainer(Generic[Batch]):
    """The training of one network in place; parameters that need no gradient are neither moved nor kept in checkpoints.

    Attributes:
        network: on its device and in the mode (training or evaluation) it is trained in.
        load: returns the batch of a step, counted from 0; called in a thread, one step ahead.
        loss: scalar loss of the network on the batch of a step, with the number of the step.
        learning_rate: learning rate of a step, from its number and the fraction of the training that is done, 0 to 1.
        checkpoint: file to continue from and to save to; None saves nothing.
        max_seconds: end after this time, earlier sessions counted in, or after the steps; the fraction done is of whichever is nearer.
        clip_norm: largest norm of the gradient.
        ema_decay: decay of an exponential average of the weights, which replaces them at the end; None keeps the weights themselves.
        after_step: called with the number of steps done.
        writes: whether this process saves the checkpoint; of several processes that train together, one does.
        agree: returns, in each of several processes, what the first of them gave it, so that all stop at the same step.
    """

    title: str
    network: nn.Module
    optimiser: torch.optim.Optimizer
    steps: int
    load: Callable[[int], Batch]
    loss: Callable[[Batch, int], Tensor]
    learning_rate: Callable[[int, float], float]
    checkpoint: Path | None = None
    max_seconds: float | None = None
    clip_norm: float | None = None
    ema_decay: float | None = None
    after_step: Callable[[int], None] | None = None
    writes: bool = True
    agree: Callable[[float], float] = float
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        self._curve = Curve()
        self._weights = {name: value for name, value in self.network.named_parameters() if value.requires_grad}
        self._device = next(iter(self._weights.values())).device
        self._average = {} if self.ema_decay is None else {name: value.detach().clone() for name, value in self._weights.items()}
        self._unread: list[Tensor] = []
        self._losses: list[float] = []
        self._note = ""

    def run(self) -> Curve:
        """Train to the end, from the checkpoint if there is one, and return the loss curve; a loss that is not finite ends it.

        On CUDA it trains by :func:`reproducible` algorithms.
        """
        with reproducible(self._device):
            return self._run()

    def _run(self) -> Curve:
        self._resume()
        curve = self._curve
        self._started = time.monotonic() - curve.seconds
        saved, pause = time.monotonic(), CHECKPOINT_SECONDS
        total = self.steps if self.max_seconds is None else None
        with self.progress.bar(self.title, total) as bar, ThreadPoolExecutor(1) as ahead:
            upcoming = ahead.submit(self._load, curve.steps)
            fraction = self._fraction_done()
            while fraction < 1:
                batch = upcoming.result()
                upcoming = ahead.submit(self._load, curve.steps + 1)
                self._step(batch, fraction)
                before, fraction = fraction, self._fraction_done()
                point_due = fraction >= 1 or int(fraction * _CURVE_POINTS) > int(before * _CURVE_POINTS)
                if point_due or len(self._unread) == _READ_EVERY:
                    self._read_losses()
                if point_due:
                    curve.points.append((curve.steps, sum(self._losses) / len(self._losses)))
                    self._losses.clear()
                left = max(0.0, (time.monotonic() - self._started) * (1 / fraction - 1))
                bar.update(curve.steps, total=round(curve.steps / fraction), note=self._note, left=left)
                if self.after_step:
                    self.after_step(curve.steps)
                if time.monotonic() - saved > pause:
                    begun = time.monotonic()
                    self._save()
                    saved = time.monotonic()
                    pause = CHECKPOINT_SECONDS * max(1.0, saved - begun)
            upcoming.cancel()
        self._save()
        with torch.no_grad():
            for name, value in self._average.items():
                self._weights[name].copy_(value)
        return curve

    def _load(self, step: int) -> Batch:
        """Return the batch of a step, in memory that the device copies from while it computes."""
        batch: Batch = pinned(self.load(step), self._device)
        return batch

    def _step(self, batch: Batch, fraction: float) -> None:
        """Make one step, and move the average of the weights."""
        step = self._curve.steps
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(step, fraction)
        loss = self.loss(batch, step)
        loss.backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._weights.values(), self.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.ema_decay is not None:
            # The decay grows as (1 + n) / (10 + n), so that a short training forgets its start.
            share = 1.0 if step == 0 else 1 - min(self.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self._average.values()), [weight.detach() for weight in self._weights.values()], share)
        self._curve.steps += 1
        self._unread.append(loss.detach())

    def _fraction_done(self) -> float:
        """Return the fraction of the training that is done: of its steps or of its time, whichever is nearer to the end."""
        by_time = 0.0 if self.max_seconds is None else (time.monotonic() - self._started) / self.max_seconds
        return self.agree(max(self._curve.steps / self.steps, by_time))

    def _read_losses(self) -> None:
        """Read the losses of the last steps from the device, and see that they are finite."""
        first = self._curve.steps - len(self._unread)
        for step, loss in enumerate(torch.stack(self._unread).tolist() if self._unread else [], start=first):
            if not math.isfinite(loss):
                raise NumericalError(
                    f"{self.title}: the loss is not finite.",
                    found=f"{loss} at step {step}",
                    hint="use a lower learning rate, or precision fp32.",
                )
            self._losses.append(loss)
            self._note = f"loss {loss:.4f}"
        self._unread.clear()

    def _state(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds of the network, sharing its memory: trained parameters, buffers and averages."""
        frozen = {name for name, value in self.network.named_parameters() if not value.requires_grad}
        state = {f"model.{name}": value for name, value in self.network.state_dict().items() if name not in frozen}
        return state | {f"average.{name}": value for name, value in self._average.items()}

    def _save(self) -> None:
        self._read_losses()
        self._curve.seconds = time.monotonic() - self._started
        if self.checkpoint is not None and self.writes:
            moments = {
                f"optimiser.{index}.{name}": value
                for index, state in self.optimiser.state_dict()["state"].items()
                for name, value in state.items()
                if value is not None
            }
            write_tensors(self.checkpoint, self._state() | moments, {"curve": json.dumps(asdict(self._curve))})

    @torch.no_grad()
    def _resume(self) -> None:
        checkpoint = None if self.checkpoint is None else load_if_valid(self.checkpoint, read_checkpoint, self.progress)
        if checkpoint is None:
            return
        try:
            self._restore(*checkpoint)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedFile(
                f"{self.checkpoint} is no checkpoint of this training, or of another version of d3hr.",
                found=f"{error!r:.200}",
                hint="delete it: the training then begins anew.",
            ) from error
        self.progress.say(f"{self.title}: continued at step {self._curve.steps}")

    def _restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        curve = json.loads(metadata["curve"])
        self._curve = Curve([(step, loss) for step, loss in curve["points"]], curve["seconds"], curve["steps"])
        for name, value in self._state().items():
            value.copy_(tensors[name])
        moments = self.optimiser.state_dict()
        moments["state"] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                moments["state"].setdefault(int(index), {})[key] = value.clone()
        self.optimiser.load_state_dict(moments)
