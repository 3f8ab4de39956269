"""Seeds that follow from names, so that a result depends on what is computed and not on when or where; and their use."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CPU = torch.device("cpu")


def derive_seed(*parts: str | int) -> int:
    """Return a 63-bit seed that is a hash of ``parts`` (for example a run's seed and a class name)."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(*parts: str | int) -> torch.Generator:
    """Return a CPU generator seeded with :func:`derive_seed` of ``parts``."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def seeded(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Seed PyTorch's global generators of the CPU and of ``device`` inside the context; afterwards they are as before (MPS's is not).

    ``torch.random.fork_rng`` and ``torch.manual_seed`` alone take the generators of all GPUs, at every call.
    """
    on_cuda = device.type == "cuda"
    index = (torch.cuda.current_device() if device.index is None else device.index) if on_cuda else 0
    with torch.random.fork_rng(devices=[index] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield
