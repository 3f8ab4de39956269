import math

import pytest
import torch
from torch import nn

from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.training import learning_rate_at, learning_rate_share, new_optimiser, parameter_groups

SGD = Protocol(name="sgd", steps=4, batch_size=2, learning_rate=0.1, weight_decay=0.5)
ADAMW = Protocol(
    name="adamw",
    epochs=4,
    batch_size=2,
    optimiser="adamw",
    learning_rate=0.1,
    schedule="half_cosine",
    weight_decay=0.5,
    decay_vectors=False,
)


def test_schedules_by_hand() -> None:
    """At half of the time cosine has 0.5 and half-cosine 0.5 (1 + cos(pi/4)) = 0.853553; at the end 0 and 0.5 (1 + cos(pi/2)) = 0.5."""
    assert learning_rate_share("cosine", 0, 8) == learning_rate_share("half_cosine", 0, 8) == 1
    assert learning_rate_share("cosine", 4, 8) == pytest.approx(0.5)
    assert learning_rate_share("half_cosine", 4, 8) == pytest.approx(0.853553, abs=1e-6)
    assert [learning_rate_share("step", done, 5) for done in range(5)] == [1, 1, 1, 0.1, 0.1]
    assert learning_rate_share("cosine", 8, 8) == pytest.approx(0)
    assert learning_rate_share("half_cosine", 8, 8) == pytest.approx(0.5)


def test_the_rate_changes_once_a_tick() -> None:
    """Of 3 images in batches of 2 an epoch has two steps of one rate; with a length in steps each has its own."""
    by_epoch = [learning_rate_at(ADAMW, step, 3) for step in range(8)]
    assert by_epoch == pytest.approx([0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 8)) for epoch in (0, 0, 1, 1, 2, 2, 3, 3)])
    assert [learning_rate_at(SGD, step, 3) for step in range(4)] == pytest.approx([0.1, 0.085355, 0.05, 0.014645], abs=1e-6)


def test_a_warm_up_rises_linearly_under_the_schedule() -> None:
    """Over half of 4 steps: 1/2 and 1 of the cosine's 1 and 0.853553, then the cosine alone."""
    rising = SGD.model_copy(update={"warmup": 0.5})
    assert [learning_rate_at(rising, step, 3) for step in range(4)] == pytest.approx([0.05, 0.085355, 0.05, 0.014645], abs=1e-6)


def test_vectors_are_spared_weight_decay() -> None:
    """A linear layer, a norm: the matrix decays; bias, scale and shift, all 1-D, do not, unless the protocol says so."""
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    decayed, spared = parameter_groups(network, ADAMW)
    assert (decayed["weight_decay"], [parameter.ndim for parameter in decayed["params"]]) == (0.5, [2])
    assert (spared["weight_decay"], [parameter.ndim for parameter in spared["params"]]) == (0.0, [1, 1, 1])
    assert [len(group["params"]) for group in parameter_groups(network, SGD)] == [4, 0]


@pytest.mark.parametrize(("protocol", "matrix", "bias"), [(SGD, 0.95, 0.95), (ADAMW, 0.95, 1.0)])
def test_a_step_without_gradient_shows_the_decay(protocol: Protocol, matrix: float, bias: float) -> None:
    """From 1, with rate 0.1 and decay 0.5, both optimisers go to 1 - 0.1 * 0.5 = 0.95; what is spared stays."""
    network = nn.Linear(2, 2)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    new_optimiser(network, protocol).step()
    torch.testing.assert_close(network.weight.detach(), torch.full((2, 2), matrix))
    torch.testing.assert_close(network.bias.detach(), torch.full((2,), bias))
