"""How fast is inversion, next to a loop that runs every level to the end with guidance 4?

The loop calls the network for the class and for none, one after the other, on all 49 steps of the grid, and takes the latents of level 31
on its way. d3hr's `paper` must end at the same latents. `fast` is measured next to both, with the deviation of its class statistics from
those of `paper`. Last, what torch.compile gains on a transformer of a more usual size. Takes turns, on one thread and in seconds of CPU
time, which other work on the machine disturbs less than the clock; ratios are medians over turns.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import d3hr
from benchmarks.harness import WORK, argument_parser, record
from benchmarks.speed.fast_preset import deviation
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import DistillSettings
from d3hr.progress import OnTerminal

PRIOR = WORK / "digits_prior"
CLASSES, IMAGES, STEPS, LEVEL, GUIDANCE = 5, 64, 50, 31, 4.0
GOALS = {"paper": 1.25, "fast": 3.0}
SHAPE = {"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 12, "sample_size": 16, "patch_size": 2}
"""Width 384, 64 tokens."""
BATCH, TURNS = 32, 7


def every_level(prior: d3hr.Prior, latents: Tensor, labels: Tensor) -> Tensor:
    """Walk to the last level, two calls a step, and return the latents [N, C, h, w] of level 31."""
    null = torch.full_like(labels, len(prior.class_names))
    z, kept = latents, latents
    for level, (before, after) in enumerate(pairwise(prior.schedule.path(STEPS - 1, STEPS)), start=1):
        of_class = prior.slope(z, after, labels)
        of_null = prior.slope(z, after, null)
        z = prior.schedule.step(z, of_null + GUIDANCE * (of_class - of_null), before, after)
        kept = z if level == LEVEL else kept
    return kept


def as_set(settings: DistillSettings) -> Callable[[d3hr.Prior, Tensor, Tensor], Tensor]:
    """Return the inversion of a preset."""
    return lambda prior, latents, labels: d3hr.invert(
        prior,
        latents,
        labels,
        level=settings.statistics_level,
        steps=settings.steps,
        guidance_scale=settings.inversion_guidance,
        solver=settings.solver,
        stride=settings.inversion_stride,
    )


def seconds(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what ``run`` returns, its CPU seconds and its seconds by the clock."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, time.process_time() - cpu, time.perf_counter() - clock


def inversions(images_per_class: int) -> dict[str, Any]:
    digits = d3hr.load_images("digits")
    prior = d3hr.fit_prior(digits, PRIOR, progress=OnTerminal())
    walks = {"every level": every_level, **{name: as_set(distill_settings(name)) for name in GOALS}}
    cpu: dict[str, list[float]] = {name: [] for name in walks}
    clock: dict[str, list[float]] = {name: [] for name in walks}
    gaussians: dict[str, dict[str, d3hr.ClassGaussian]] = {name: {} for name in walks}
    gap = 0.0
    for place, class_name in enumerate(digits.class_names[:CLASSES]):
        latents = prior.encode(next(digits.batches(class_name, images_per_class)))
        labels = torch.full((len(latents),), prior.class_names.index(class_name))
        prior.predict_noise(latents, 0, labels)  # warms up
        inverted = {}
        for name in list(walks)[:: 1 if place % 2 else -1]:
            inverted[name], of_cpu, of_clock = seconds(lambda walk=walks[name]: walk(prior, latents, labels))  # type: ignore[misc]  # noqa: B023
            cpu[name].append(len(latents) / of_cpu)
            clock[name].append(len(latents) / of_clock)
            gaussians[name][class_name] = d3hr.ClassGaussian.empty(latents[0].numel()).update(inverted[name].flatten(1))
        gap = max(gap, float((inverted["paper"] - inverted["every level"]).abs().max()))

    def ratios(rates: dict[str, list[float]]) -> dict[str, float]:
        return {name: statistics.median(a / b for a, b in zip(rates[name], rates["every level"], strict=True)) for name in GOALS}

    return {
        "images_per_cpu_second": {name: statistics.median(rates) for name, rates in cpu.items()},
        "images_per_second": {name: statistics.median(rates) for name, rates in clock.items()},
        "ratio": ratios(cpu),
        "ratio_by_clock": ratios(clock),
        "largest_difference_of_paper": gap,
        "deviation_of_fast": deviation(gaussians["fast"], gaussians["paper"]),
    }


def compiling() -> dict[str, float]:
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    plain = DiTTransformer2DModel(in_channels=4, out_channels=4, num_embeds_ada_norm=10, **SHAPE).eval()
    compiled: Any = torch.compile(plain)
    z, t, y = torch.randn(BATCH, 4, 16, 16), torch.full((BATCH,), 500), torch.zeros(BATCH, dtype=torch.int64)
    with torch.inference_mode():
        expected, *_ = seconds(lambda: plain(z, timestep=t, class_labels=y).sample)
        actual, _, at_first = seconds(lambda: compiled(z, timestep=t, class_labels=y).sample)
        turns = [
            [seconds(lambda: network(z, timestep=t, class_labels=y))[1] for network in (plain, compiled)]  # noqa: B023
            for _ in range(TURNS)
        ]
    return {
        "plain_cpu_seconds": statistics.median(turn[0] for turn in turns),
        "compiled_cpu_seconds": statistics.median(turn[1] for turn in turns),
        "ratio": statistics.median(turn[0] / turn[1] for turn in turns),
        "compiling_seconds": at_first,
        "largest_difference": float((actual - expected).abs().max()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images-per-class", type=int, default=IMAGES)
    images = parser.parse_args(arguments).images_per_class
    torch.set_num_threads(1)
    busy = os.getloadavg()[0]
    walks = inversions(images)
    for name, rate in walks["images_per_cpu_second"].items():
        print(f"{name:12s} {rate:6.2f} images per CPU second, {walks['images_per_second'][name]:6.2f} per second by the clock")
    for name, goal in GOALS.items():
        print(f"{name} / every level: {walks['ratio'][name]:.2f} (goal {goal:g}; by the clock {walks['ratio_by_clock'][name]:.2f})")
    off = walks["deviation_of_fast"]
    print(f"paper and every level differ by {walks['largest_difference_of_paper']:.1e} at most (goal 1e-4)")
    print(f"fast is off paper by {off['mean_in_sigma']:.3f} sigma in the mean, {100 * off['std_share']:.1f} % in the std")
    gain = compiling()
    print(f"compiled / plain transformer: {gain['ratio']:.2f} times as fast, after {gain['compiling_seconds']:.0f} s of compiling")
    print(f"load of the machine when it began: {busy:.1f}")
    settings = {"classes": CLASSES, "images_per_class": images, "threads": 1, "load": busy, "goals": GOALS}
    settings |= {name: distill_settings(name).model_dump(mode="json") for name in GOALS} | {"compiled": {**SHAPE, "batch": BATCH}}
    record("inversion", settings, {**walks, "torch_compile": gain})


if __name__ == "__main__":
    main()
