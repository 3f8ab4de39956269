"""One optimiser run over a loss: learning rate, clipping, averaged weights, budget, and checkpoints that continue to the same weights.

Batches and noise of a step follow from (seed, step) alone, so a checkpoint needs no random state: weights, moments and the step
are all. Checkpoints are single safetensors files.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from d3hr.errors import NumericalError
from d3hr.fileio.atomic import load_if_valid, read_checkpoint, write_tensors
from d3hr.prior.presets import Training
from d3hr.progress import Progress
from d3hr.seeds import derive_seed, generator_for

CHECKPOINT_SECONDS = 30.0
_CURVE_POINTS = 200
Batch = TypeVar("Batch")


class Process(Protocol):
    """What an optimiser run needs of ``accelerate.Accelerator``."""

    num_processes: int
    process_index: int
    is_main_process: bool
    device: torch.device

    def prepare(self, *parts: Any) -> Any:
        """Wrap network and optimiser for this device and for several processes."""

    def backward(self, loss: Tensor) -> None:
        """Compute gradients."""

    def clip_grad_norm_(self, parameters: Any, max_norm: float) -> Any:
        """Scale gradients down to ``max_norm``."""

    def wait_for_everyone(self) -> None:
        """Wait until every process is here."""


@dataclass
class Curve:
    """The loss of a run: ``points`` are (step, mean loss since the point before)."""

    points: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    steps: int = 0


class Indices:
    """An endless, seeded stream of positions in a data set: every epoch visits each once, in a new order."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self._size, self._batch_size, self._seed = size, batch_size, seed
        self._orders: dict[int, Tensor] = {}

    def at(self, step: int) -> Tensor:
        """Return the int64 [batch_size] positions of one step."""
        places = torch.arange(step * self._batch_size, (step + 1) * self._batch_size)
        return torch.stack([self._order(int(place) // self._size)[int(place) % self._size] for place in places])

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = torch.randperm(self._size, generator=generator_for(self._seed, "epoch", epoch))
        return self._orders[epoch]


def rate(fraction: float, step: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up times a cosine over the fraction of the run done."""
    return min(1.0, (step + 1) / warmup_steps) * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))


@dataclass(frozen=True)
class Run:
    """What all optimiser runs of one fit have in common.

    Attributes:
        seed: seed of order and noise.
        bf16: compute in bfloat16 where PyTorch's autocast does.
        process: the accelerator.
        folder: where checkpoints are.
        progress: where to report.
    """

    seed: int
    bf16: bool
    process: Process
    folder: Path
    progress: Progress

    def order(self, network: str, size: int, training: Training) -> Indices:
        """Return the order in which a network sees ``size`` images."""
        return Indices(size, training.batch_size, derive_seed(self.seed, network, "order"))

    def share(self, positions: Tensor) -> Tensor:
        """Return this process's part of a batch."""
        return positions[self.process.process_index :: self.process.num_processes]

    def agreed(self, value: float) -> float:
        """Return the first process's value in every process, so that all stop at the same step."""
        if self.process.num_processes == 1:
            return value
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor(value, device=self.process.device)))


def optimise(
    title: str,
    model: nn.Module,
    load: Callable[[int], Batch],
    loss: Callable[[nn.Module, Batch, torch.Generator], Tensor],
    run: Run,
    *,
    training: Training,
    max_seconds: float | None,
) -> Curve:
    """Train ``model`` in place and leave its averaged weights in it; parameters that need no gradient are neither moved nor kept.

    Args:
        title: what is being trained; seeds and checkpoint follow from it.
        model: the network.
        load: gives the batch of a step; runs one step ahead in a thread.
        loss: scalar loss of the network on a batch, with the step's noise generator.
        run: the fit this is part of; its folder holds the checkpoint to continue from.
        training: hyper-parameters.
        max_seconds: end after this time, earlier sittings counted in, or after the steps; the learning rate falls with what is nearer.

    Raises:
        NumericalError: the loss is not finite.
    """
    process, seed = run.process, derive_seed(run.seed, title)
    checkpoint = run.folder / f"{title}.safetensors"
    model = model.to(process.device)
    weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
    average = {name: value.detach().clone() for name, value in weights.items()}
    optimiser = torch.optim.AdamW(weights.values(), lr=training.learning_rate, weight_decay=0.0)
    found = load_if_valid(checkpoint, read_checkpoint, run.progress)
    curve = _restore(*found, weights, average, optimiser) if found else Curve()
    wrapped, wrapped_optimiser = process.prepare(model, optimiser)
    started = time.monotonic() - curve.seconds
    saved, saving = time.monotonic(), 0.0
    losses: list[float] = []

    def save() -> None:
        curve.seconds = time.monotonic() - started
        if process.is_main_process:
            _save(checkpoint, weights, average, optimiser, curve)

    def fraction_done() -> float:
        by_time = 0.0 if max_seconds is None else (time.monotonic() - started) / max_seconds
        return run.agreed(max(curve.steps / training.steps, by_time))

    with run.progress.bar(title, training.steps) as bar, ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(load, curve.steps)
        fraction = fraction_done()
        while fraction < 1:
            step = curve.steps
            batch = upcoming.result()
            upcoming = ahead.submit(load, step + 1)
            for group in optimiser.param_groups:
                group["lr"] = training.learning_rate * rate(fraction, step, training.warmup_steps)
            noise = torch.Generator(process.device).manual_seed(derive_seed(seed, "step", step, process.process_index))
            with torch.autocast(process.device.type, torch.bfloat16, enabled=run.bf16):
                value = loss(wrapped, batch, noise)
            process.backward(value)
            process.clip_grad_norm_(weights.values(), training.clip_norm)
            wrapped_optimiser.step()
            wrapped_optimiser.zero_grad()
            _move_average(average, weights, training.ema_decay, step)
            curve.steps += 1
            losses.append(_finite(float(value.detach()), title, step))
            before, fraction = fraction, fraction_done()
            if fraction >= 1 or int(fraction * _CURVE_POINTS) > int(before * _CURVE_POINTS):
                curve.points.append((curve.steps, sum(losses) / len(losses)))
                losses.clear()
            bar.update(curve.steps, total=round(curve.steps / fraction), note=f"loss {value.detach():.4f}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS * max(1.0, saving):
                begun = time.monotonic()
                save()
                saved = time.monotonic()
                saving = saved - begun
        upcoming.cancel()
    save()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(average[name])
    return curve


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of an optimiser by names that start with ``optimiser.``."""
    states = optimiser.state_dict()["state"]
    return {f"optimiser.{index}.{name}": value for index, state in states.items() for name, value in state.items() if value is not None}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the moments that :func:`optimiser_tensors` wrote; other names are passed over."""
    state = optimiser.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state["state"].setdefault(int(index), {})[key] = value.clone()
    optimiser.load_state_dict(state)


def _finite(loss: float, title: str, step: int) -> float:
    if not math.isfinite(loss):
        raise NumericalError(
            f"The loss of the {title} is not finite.",
            found=f"{loss} at step {step}",
            hint="use --precision fp32 or bf16, or a lower learning rate.",
        )
    return loss


@torch.no_grad()
def _move_average(average: dict[str, Tensor], weights: dict[str, nn.Parameter], decay: float, step: int) -> None:
    """Move an exponential average whose decay grows as (1 + n) / (10 + n), so that a short run forgets its start."""
    share = 1.0 if step == 0 else 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.values()), [weight.detach() for weight in weights.values()], share)


def _save(path: Path, weights: dict[str, nn.Parameter], average: dict[str, Tensor], optimiser: torch.optim.Optimizer, curve: Curve) -> None:
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in weights.items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    tensors |= optimiser_tensors(optimiser)
    about = {"points": curve.points, "seconds": curve.seconds, "steps": curve.steps}
    write_tensors(path, tensors, {"curve": json.dumps(about)})


@torch.no_grad()
def _restore(
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
    weights: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> Curve:
    about = json.loads(metadata["curve"])
    restore_optimiser(optimiser, tensors)
    for name, weight in weights.items():
        weight.copy_(tensors[f"model.{name}"])
        average[name].copy_(tensors[f"average.{name}"])
    return Curve([(step, value) for step, value in about["points"]], about["seconds"], about["steps"])
