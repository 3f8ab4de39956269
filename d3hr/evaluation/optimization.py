"""The optimiser of a student with its learning rate, as a protocol says."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from d3hr.evaluation.protocols import Protocol


def learning_rate_share(schedule: str, done: int, total: int) -> float:
    """Return the share of the first learning rate that holds at time ``done`` of ``total``.

    Args:
        schedule: ``cosine``, 0.5 (1 + cos(pi done / total)); ``half_cosine``, 0.5 (1 + cos(pi done / (2 total))); or ``step``, 1 in the
            first half and 0.1 in the second.
        done: epochs or steps behind, from 0.
        total: all epochs or steps.
    """
    if schedule == "step":
        return 1.0 if 2 * done < total else 0.1
    span = {"cosine": total, "half_cosine": 2 * total}[schedule]
    return 0.5 * (1 + math.cos(math.pi * done / span))


def learning_rate_at(protocol: Protocol, step: int, count: int) -> float:
    """Return the learning rate of a step, from 0, of a training on ``count`` images."""
    ticks, steps_each = protocol.ticks(count)
    rising = protocol.warmup * ticks * steps_each
    risen = min(1.0, (step + 1) / rising) if rising else 1.0
    return protocol.learning_rate * risen * learning_rate_share(protocol.schedule, step // steps_each, ticks)


def parameter_groups(network: nn.Module, protocol: Protocol) -> list[dict[str, Any]]:
    """Return the parameters of a network with their weight decay, those without decay in a group of their own."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in network.parameters():
        (decayed if protocol.decay_vectors or parameter.ndim > 1 else spared).append(parameter)
    return [{"params": decayed, "weight_decay": protocol.weight_decay}, {"params": spared, "weight_decay": 0.0}]


def new_optimiser(network: nn.Module, protocol: Protocol) -> torch.optim.Optimizer:
    """Return the optimiser of a network."""
    groups = parameter_groups(network, protocol)
    if protocol.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=protocol.learning_rate, betas=(protocol.momentum, 0.999))
    return torch.optim.SGD(groups, lr=protocol.learning_rate, momentum=protocol.momentum, nesterov=protocol.nesterov)
