"""Identifies networks by what they compute with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def fingerprint(networks: Iterable[nn.Module], about: Any) -> str:
    """Return a SHA-256 over every weight of ``networks`` and the text of ``about``.

    Args:
        networks: networks, in a fixed order.
        about: what else decides their results; its ``repr`` is hashed.
    """
    digest = hashlib.sha256(repr(about).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
