"""Untrained networks that are measured in place of a prior of which only the shape is known.

How fast a device is does not depend on what weights are, so that an untrained network of the same shape takes as long. Where it is large,
smaller ones stand in: a transformer's blocks are alike, so that those of one and of two blocks give the line to its depth; the blocks of a
U-Net are not, so that one of fewer blocks, of the same widths and sides, is measured and its time extended by counted operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from d3hr.execution.memory import total_bytes
from d3hr.planning.counting import prior_needs
from d3hr.planning.measure import Timing
from d3hr.planning.shapes import PriorShape
from d3hr.prior.model import Prior
from d3hr.prior.networks import default_device

LARGEST_SHARE = 1 / 4
"""A U-Net is measured whole if it takes no more than this share of the memory there is."""


@dataclass(frozen=True)
class StandIns:
    """A prior, or what is measured in its place.

    Attributes:
        priors: the prior alone, or untrained ones.
        about: how they stand in for it, in words; empty for the prior itself.
        extended: from the timings of each of ``priors``, that of the prior.
    """

    priors: Sequence[Prior]
    about: str
    extended: Callable[[Sequence[Timing]], Timing]

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all their weights."""
        return sum(prior.num_bytes for prior in self.priors)

    def timing(self, measured: Callable[[Prior], Timing]) -> Timing:
        """Return how long calls of the prior's network take, given how to measure those of another."""
        return self.extended([measured(prior) for prior in self.priors])


def stand_ins(prior: Prior | PriorShape) -> StandIns:
    """Return a prior itself or, for a shape, what stands in for it."""
    if isinstance(prior, Prior):
        return StandIns([prior], "", _only)
    if layers := prior.layers:
        about = "times from untrained networks of one and two transformer blocks, extended to the prior's depth"
        few = [prior.with_network(num_layers=count).untrained() for count in (1, 2)]
        return StandIns(few, about, lambda timings: timings[0].scaled(timings[1], layers - 1))
    if prior_needs(prior).weights <= LARGEST_SHARE * total_bytes(default_device()):
        return StandIns([prior.untrained()], "times from an untrained network of the prior's shape", _only)
    thin = thinned(prior)
    factor = prior_needs(prior).network.flops / prior_needs(thin).network.flops
    about = f"times from an untrained U-Net of fewer blocks, times {factor:.1f}, as many operations as the prior's has"
    return StandIns([thin.untrained()], about, lambda timings: timings[0].times(factor))


def thinned(shape: PriorShape) -> PriorShape:
    """Return the shape of a U-Net with one layer in each block, of one transformer block each, where its operations are alike."""
    fewer = {name: 1 for name in ("layers_per_block", "transformer_layers_per_block") if name in shape.network}
    return shape.with_network(**{"layers_per_block": 1, **fewer})


def _only(timings: Sequence[Timing]) -> Timing:
    (timing,) = timings
    return timing
