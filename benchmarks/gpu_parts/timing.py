"""How long a call takes on a device, and the most memory that it holds there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from d3hr.execution.memory import peak_bytes
from d3hr.planning.measure import seconds_of

REPEATS = 20
LONG_ENOUGH = 1.5
"""Seconds after which a call is not repeated any more."""


def median_seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Return the median seconds of a call, of at least two, after two that set the device up."""
    for _ in range(2):
        seconds_of(run, device)
    began, taken = time.perf_counter(), list[float]()
    while len(taken) < 2 or (len(taken) < REPEATS and time.perf_counter() - began < LONG_ENOUGH):
        taken.append(seconds_of(run, device))
    return statistics.median(taken)


def forget_peak(device: torch.device) -> None:
    """Let :func:`peak_gib` count from now on, where the device can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float:
    """Return the most GiB held so far: by tensors on a GPU, or by this process."""
    return peak_bytes(device) / 2**30
