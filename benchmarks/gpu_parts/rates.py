"""Rates of what comes before and after inversion: encoding and decoding, and steps of students with CutMix and of teachers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from benchmarks.gpu_parts.timing import forget_peak, median_seconds, peak_gib
from benchmarks.gpu_parts.worker import Figures, Job, Measurements
from d3hr.data.codec import to_unit_range
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.training import hard_targets, seeded_student, train_student
from d3hr.planning.measure import seconds_of
from d3hr.prior.model import PRECISIONS


def measurements(job: Job) -> Measurements:
    """Yield the rates, in bfloat16 first."""
    for precision in ("bf16", "fp32"):
        for way in ("encode", "decode"):
            yield f"{way} {precision}", partial(_coding, job, way, precision)
        yield f"student step with CutMix {precision}", partial(_step, job, "student", precision)
        yield f"teacher step {precision}", partial(_step, job, "teacher", precision)


def _coding(job: Job, way: str, precision: str) -> Figures:
    """Measure the autoencoder, from images on the CPU or to them."""
    prior = replace(job.scale.shape.with_network(num_layers=1), dtype=PRECISIONS[precision]).untrained()
    n = job.scale.coded
    forget_peak(job.device)
    if way == "encode":
        images = torch.rand(n, 3, prior.image_size, prior.image_size) * 2 - 1
        seconds = median_seconds(lambda: prior.encode(images), job.device)
    else:
        latents = torch.randn(n, *prior.latent_shape, device=job.device)
        seconds = median_seconds(lambda: prior.decode(latents).cpu(), job.device)
    return {"images_per_second": n / seconds, "peak_gib": peak_gib(job.device), "batch": n}


def _step(job: Job, kind: Literal["student", "teacher"], precision: str) -> Figures:
    """Measure a step by the difference of two trainings, on random images in memory."""
    name, side, n = job.scale.student if kind == "student" else job.scale.teacher
    protocol = protocol_named("teacher").model_copy(update={"epochs": None, "batch_size": n, "precision": precision})
    if kind == "student":
        protocol = protocol.model_copy(update={"mix": "cutmix", "shift": 0.0, "crop_scale": (0.08, 1.0)})
    pixels = torch.randint(256, (2 * n, 3, side, side), dtype=torch.uint8)
    labels = (torch.arange(2 * n) % job.scale.classes).to(job.device)
    network = seeded_student(name, job.scale.classes, side, 0)

    def train(steps: int) -> None:
        train_student(
            network,
            lambda positions: to_unit_range(pixels[positions]),
            2 * n,
            protocol=protocol.model_copy(update={"steps": steps}),
            targets=hard_targets(labels, job.scale.classes),
            image_size=side,
            seed=0,
            title=kind,
        )

    train(1)
    forget_peak(job.device)
    short = seconds_of(lambda: train(1), job.device)
    step = (seconds_of(lambda: train(1 + job.scale.steps), job.device) - short) / job.scale.steps
    return {"milliseconds": 1000 * step, "images_per_second": n / step, "peak_gib": peak_gib(job.device), "batch": n}
