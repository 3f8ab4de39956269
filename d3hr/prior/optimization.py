"""One optimiser run over a loss: learning rate, clipping, averaged weights, budget, and checkpoints that continue to the same weights.

Batches and noise of a step follow from (seed, step) alone, so a checkpoint needs no random state: weights, moments and the step
are all. Checkpoints are single safetensors files.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from d3hr.errors import NumericalError
from d3hr.prior.presets import Training
from d3hr.progress import Progress
from d3hr.seeds import derive_seed, generator_for
from d3hr.staging import write_tensors

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


def optimise(
    model: nn.Module,
    load: Callable[[int], Batch],
    loss: Callable[[nn.Module, Batch, torch.Generator], Tensor],
    *,
    training: Training,
    seed: int,
    max_seconds: float | None,
    bf16: bool,
    process: Process,
    checkpoint: Path,
    progress: Progress,
    title: str,
) -> Curve:
    """Train ``model`` in place and leave its averaged weights in it.

    Args:
        model: the network.
        load: gives the batch of a step; runs one step ahead in a thread.
        loss: scalar loss of the network on a batch, with the step's noise generator.
        training: hyper-parameters.
        seed: seed of the run; the noise of a step follows from it.
        max_seconds: end after this time, earlier sittings counted in, or after the steps; the learning rate falls with what is nearer.
        bf16: compute in bfloat16 where PyTorch's autocast does.
        process: the accelerator.
        checkpoint: file to continue from and to save to.
        progress: where to report.
        title: what is being trained.

    Raises:
        NumericalError: the loss is not finite.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.0)
    model = model.to(process.device)
    average = AveragedModel(model, multi_avg_fn=_average(training.ema_decay))
    curve = _load(checkpoint, model, average, optimiser) if checkpoint.exists() else Curve()
    wrapped, wrapped_optimiser = process.prepare(model, optimiser)
    started, saved = time.monotonic() - curve.seconds, time.monotonic()
    losses: list[float] = []

    def save() -> None:
        curve.seconds = time.monotonic() - started
        if process.is_main_process:
            _save(checkpoint, model, average, optimiser, curve)

    def fraction_done() -> float:
        by_time = 0.0 if max_seconds is None else (time.monotonic() - started) / max_seconds
        return max(curve.steps / training.steps, by_time)

    with progress.bar(title, training.steps) as bar, ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(load, curve.steps)
        fraction = fraction_done()
        while fraction < 1:
            step = curve.steps
            batch = upcoming.result()
            upcoming = ahead.submit(load, step + 1)
            for group in optimiser.param_groups:
                group["lr"] = training.learning_rate * rate(fraction, step, training.warmup_steps)
            noise = torch.Generator(process.device).manual_seed(derive_seed(seed, "step", step, process.process_index))
            with torch.autocast(process.device.type, torch.bfloat16, enabled=bf16):
                value = loss(wrapped, batch, noise)
            process.backward(value)
            process.clip_grad_norm_(wrapped.parameters(), training.clip_norm)
            wrapped_optimiser.step()
            wrapped_optimiser.zero_grad()
            average.update_parameters(model)
            curve.steps += 1
            losses.append(_finite(float(value.detach()), title, step))
            before, fraction = fraction, fraction_done()
            if fraction >= 1 or int(fraction * _CURVE_POINTS) > int(before * _CURVE_POINTS):
                curve.points.append((curve.steps, sum(losses) / len(losses)))
                losses.clear()
            bar.update(curve.steps, total=round(curve.steps / fraction), note=f"loss {value.detach():.4f}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
        upcoming.cancel()
    save()
    model.load_state_dict(average.module.state_dict())
    return curve


def _finite(loss: float, title: str, step: int) -> float:
    if not math.isfinite(loss):
        raise NumericalError(
            f"The loss of the {title} is not finite.",
            found=f"{loss} at step {step}",
            do="use --precision fp32 or bf16, or a lower learning rate.",
        )
    return loss


def _average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose decay grows as (1 + n) / (10 + n), so that a short run forgets its start."""

    @torch.no_grad()
    def update(averages: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _save(path: Path, model: nn.Module, average: AveragedModel, optimiser: torch.optim.Optimizer, curve: Curve) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    about = {"points": curve.points, "seconds": curve.seconds, "steps": curve.steps}
    write_tensors(path, tensors, {"curve": json.dumps(about)})


def _load(path: Path, model: nn.Module, average: AveragedModel, optimiser: torch.optim.Optimizer) -> Curve:
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["curve"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    state = optimiser.state_dict()
    state["state"] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            state["state"].setdefault(int(index), {})[key] = value.clone()
    optimiser.load_state_dict(state)
    for prefix, target in (("model.", model), ("average.", average)):
        target.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})
    return Curve([(step, value) for step, value in about["points"]], about["seconds"], about["steps"])
