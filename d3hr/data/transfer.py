"""Copies batches to a device while it computes: a CUDA device reads pinned memory by itself."""

from typing import Any

import torch
from torch import Tensor


def pinned(batch: Any, device: torch.device) -> Any:
    """Return a batch, a tensor or a tuple of such, in memory from which a CUDA device copies by itself; for other devices as it is."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return batch
    if isinstance(batch, tuple):
        return tuple(pinned(part, device) for part in batch)
    return batch.pin_memory() if isinstance(batch, Tensor) and batch.device.type == "cpu" else batch


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a CUDA device copies it while this process goes on."""
    return tensor.to(device, non_blocking=device.type == "cuda")
