"""Inversion and drawing with a transformer of DiT-XL/2's shape: images a second and share of the card's peak.

Some steps of the grid are measured; a distillation takes :data:`LEVEL` of them. Encoding and decoding come on top (part rates).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_parts.timing import forget_peak, median_seconds, peak_gib
from benchmarks.gpu_parts.worker import Figures, Job, Measurements, NotNow
from d3hr import Prior, denoise, invert
from d3hr.distillation.ddim import calls_per_prediction
from d3hr.distillation.presets import distill_settings
from d3hr.planning.measure import seconds_of

LEVEL = distill_settings("paper").statistics_level
GUIDANCES = (1.0, 4.0)
COMPILING_SECONDS = 45.0
"""No network of this size is compiled in less."""


@dataclass
class Network:
    """The prior that is measured."""

    job: Job
    compiled: bool = False
    rates: dict[int, float] = field(default_factory=dict)
    """Images a second by the size of a batch, of inversion without guidance."""

    @cached_property
    def prior(self) -> Prior:
        """The prior, in bfloat16."""
        return replace(self.job.scale.shape, dtype=torch.bfloat16).untrained()

    @cached_property
    def flops(self) -> int:
        """Operations of one call of the network for one image."""
        latent = torch.randn(1, *self.prior.latent_shape, device=self.job.device)
        with FlopCounterMode(display=False) as counter:
            self.prior.slope(latent, self.prior.schedule.points(2)[1], self.prior.denoiser.example)
        return int(counter.get_total_flops())

    @property
    def best_batch(self) -> int:
        """The batch of the most images a second."""
        return max(self.rates, key=lambda size: self.rates[size])

    def built(self) -> Figures:
        """Make the prior."""
        seconds = seconds_of(lambda: self.prior, self.job.device)
        weights = sum(weight.numel() for weight in self.prior.network.parameters())
        return {"seconds": seconds, "parameters": weights, "gflop_per_call": self.flops / 1e9, "precision": self.prior.precision}

    def rate(self, walk: Callable[..., Tensor], guidance: float, batch: int | None = None) -> Figures:
        """Measure a way along the grid, by default with the best batch."""
        if batch is None and not self.rates:
            raise NotNow("inversion has no rate")
        job, size = self.job, batch or self.best_batch
        forget_peak(job.device)
        latents = torch.randn(size, *self.prior.latent_shape, device=job.device)
        steps = distill_settings("paper").steps
        condition = self.prior.denoiser.example
        run = partial(walk, self.prior, latents, condition, level=job.scale.levels, steps=steps, guidance_scale=guidance)
        seconds = median_seconds(run, job.device) / job.scale.levels
        rate = size / seconds / LEVEL
        if batch:
            self.rates[batch] = rate
        tflops = size * calls_per_prediction(guidance) * self.flops / seconds / 1e12
        peak = job.figures("peak", "bf16").get("tflops")
        share = {"share_of_peak": tflops / peak} if peak else {}
        return {"images_per_second": rate, "tflops": tflops, **share, "peak_gib": peak_gib(job.device), "batch": size}

    def compile(self) -> Figures:
        """Have the network compiled."""
        self.job.require(COMPILING_SECONDS)
        seconds = seconds_of(lambda: self.prior.compile(self.job.scale.compiler), self.job.device)
        self.compiled = True
        return {"seconds": seconds}

    def compiled_rate(self, walk: Callable[..., Tensor], guidance: float) -> Figures:
        """Measure a way along the grid, if the network is compiled."""
        if not self.compiled:
            raise NotNow("the network is not compiled")
        return self.rate(walk, guidance)


def measurements(job: Job) -> Measurements:
    """Yield the rates of every size of a batch, then of the best one, and last those of a compiled network."""
    network = Network(job)
    yield "network", network.built
    for size in job.scale.batches:
        yield f"inversion, eager, guidance 1, batch {size}", partial(network.rate, invert, 1.0, size)
    yield "inversion, eager, guidance 4", partial(network.rate, invert, 4.0)
    for guidance in GUIDANCES:
        yield f"drawing, eager, guidance {guidance:g}", partial(network.rate, denoise, guidance)
    yield "compiling", network.compile
    for guidance in GUIDANCES:
        yield f"inversion, compiled, guidance {guidance:g}", partial(network.compiled_rate, invert, guidance)
    for guidance in GUIDANCES:
        yield f"drawing, compiled, guidance {guidance:g}", partial(network.compiled_rate, denoise, guidance)
