"""What the trainings of a prior's networks have in common: optimiser, schedule, averaged weights, order and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from d3hr.prior.presets import TrainingSettings
from d3hr.prior.trainer import Batch, Curve, Trainer, decay, endless_batches, warm_up
from d3hr.progress import Progress
from d3hr.seeds import derive_seed

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class FitContext:
    """One fit of a prior, which trains one or two networks."""

    seed: int
    bf16: bool
    """Whether to compute in bfloat16 where PyTorch's autocast does."""
    process: Accelerator
    folder: Path
    """Where the checkpoints are."""
    progress: Progress

    def batches(self, title: str, size: int, settings: TrainingSettings) -> Callable[[int], Tensor]:
        """Return a function from step to positions, int64 [n], in a data set of ``size`` images: this process's share of the batch."""
        positions = endless_batches(size, settings.batch_size, derive_seed(self.seed, title, "order"))
        return lambda step: positions(step)[self.process.process_index :: self.process.num_processes]

    def train(
        self,
        title: str,
        network: nn.Module,
        load: Callable[[int], Batch],
        loss: Callable[[nn.Module, Batch, torch.Generator], Tensor],
        settings: TrainingSettings,
        max_seconds: float | None = None,
    ) -> Curve:
        """Train ``network`` in place by AdamW, leave the averaged weights in it, and return the loss curve.

        Args:
            title: name of the network; seeds and the checkpoint's name follow from it.
            load: returns the batch of a step.
            loss: scalar loss of the network on a batch, with a generator for the noise of the step.
            max_seconds: end after this time, or after the steps.
        """
        seed, device = derive_seed(self.seed, title), self.process.device
        network = network.to(device)
        prepared = self.process.prepare(network)

        def noisy_loss(batch: Batch, step: int) -> Tensor:
            noise = torch.Generator(device).manual_seed(derive_seed(seed, "step", step, self.process.process_index))
            with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                return loss(prepared, batch, noise)

        def learning_rate(step: int, fraction: float) -> float:
            return settings.learning_rate * (warm_up(step, settings.warmup_steps) * decay("cosine", fraction, 1))

        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return Trainer(
            title,
            network,
            torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0),
            settings.steps,
            load,
            noisy_loss,
            learning_rate,
            checkpoint=self.folder / f"{title}.safetensors",
            max_seconds=max_seconds,
            clip_norm=settings.clip_norm,
            ema_decay=settings.ema_decay,
            writes=self.process.is_main_process,
            agree=self._first,
            progress=self.progress,
        ).run()

    def _first(self, value: float) -> float:
        """Return the first process's value in every process."""
        if self.process.num_processes == 1:
            return value
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor(value, device=self.process.device)))
