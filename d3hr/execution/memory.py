"""How much memory a device has, holds and has held. On CUDA that is the device's own memory, elsewhere that of the process."""

import resource
import sys
import threading
from collections.abc import Callable

import psutil
import torch

_SAMPLING = 0.002
"""Seconds between two measurements of the memory of the process."""


def device_name(device: torch.device) -> str:
    """Return a name of a device for people: of the card, or ``cpu (2 threads)``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' if threads > 1 else ''})"


def total_bytes(device: torch.device) -> int:
    """Return the bytes of memory of the device, or of the machine."""
    return int(torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else psutil.virtual_memory().total)


def resident_bytes(device: torch.device) -> int:
    """Return the bytes held now: by the process, or on CUDA by its tensors on the device."""
    return int(torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes held so far: by the process, or on CUDA by its tensors on the device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "std::bad_alloc")
"""What other backends than CUDA's allocator say, in lower case: MPS, XPU and CUDA's driver; the CPU on Linux and on Windows; cuBLAS, cuDNN
and cuFFT, whose workspaces do not fit; C++."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that a device has no more memory: CUDA's allocator and Python have a class for it, others a message."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in _OUT_OF_MEMORY)


def release_unused(device_type: str) -> None:
    """Give memory that PyTorch keeps for later back to devices of a type."""
    if device_type == "cuda":
        torch.cuda.empty_cache()
    elif device_type == "mps":
        torch.mps.empty_cache()


class HeldMemory:
    """Measures how many bytes a function holds at most, beyond those held when this object was created.

    On CUDA these are bytes of tensors on the device. Elsewhere they are bytes of the process, measured every 2 ms, so a peak that is
    shorter may be missed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._before = device, resident_bytes(device)

    def __call__(self, function: Callable[[], None]) -> int:
        """Call ``function`` and return the bytes."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            function()
            return peak_bytes(self.device) - self._before
        finished, samples = threading.Event(), [resident_bytes(self.device)]

        def sample() -> None:
            while not finished.wait(_SAMPLING):
                samples[0] = max(samples[0], resident_bytes(self.device))

        sampler = threading.Thread(target=sample, daemon=True)
        sampler.start()
        try:
            function()
        finally:
            finished.set()
            sampler.join()
        return max(0, samples[0] - self._before, resident_bytes(self.device) - self._before)
