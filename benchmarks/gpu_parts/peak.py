"""How many operations a second the device makes in products of square matrices, by precision; a multiplication and an addition are two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from benchmarks.gpu_parts.timing import median_seconds
from benchmarks.gpu_parts.worker import Figures, Job, Measurements

KINDS = {
    "bf16": (torch.bfloat16, False),
    "fp16": (torch.float16, False),
    "tf32": (torch.float32, True),
    "fp32": (torch.float32, False),
}
"""Type of the values, and whether products round them to TensorFloat-32."""


def measurements(job: Job) -> Measurements:
    """Yield the peak of each precision."""
    for kind in KINDS:
        yield kind, partial(_peak, job, kind)


def _peak(job: Job, kind: str) -> Figures:
    dtype, rounded = KINDS[kind]
    n = job.scale.matrix
    a, b = (torch.randn(n, n, device=job.device).to(dtype) for _ in range(2))  # zeros would be faster
    with _tensor_float(rounded):
        seconds = median_seconds(lambda: a @ b, job.device)
    return {"tflops": 2 * n**3 / seconds / 1e12, "seconds": seconds}


@contextmanager
def _tensor_float(allowed: bool) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
