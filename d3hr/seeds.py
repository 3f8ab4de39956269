"""Seeds that follow from names, so that a result depends on what is computed and not on when or where."""

import hashlib
import json

import torch


def derive_seed(*parts: str | int) -> int:
    """Return a 63-bit seed that is a hash of ``parts`` (for example a run's seed and a class name)."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for(*parts: str | int) -> torch.Generator:
    """Return a CPU generator seeded with :func:`derive_seed` of ``parts``."""
    return torch.Generator().manual_seed(derive_seed(*parts))
