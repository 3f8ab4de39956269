"""What is measured in place of a prior of which only the shape is known, of every family."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from d3hr.planning import stand_ins as module
from d3hr.planning.counting import prior_needs
from d3hr.planning.known_shapes import SHAPES
from d3hr.planning.measure import Timing
from d3hr.planning.plan import plan
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stand_ins import stand_ins, thinned
from tests.prior.small_priors import CLASSES, SMALL_PRIORS, SmallPrior

FAST: dict[str, Any] = {"steps": 5, "statistics_level": 2, "denoising_level": 2, "strategy": "exact", "protocol": "quick", "ipc": 2}
LARGE = SHAPES["stabilityai/stable-diffusion-xl-base-1.0"]


@pytest.mark.slow
@pytest.mark.parametrize("small", SMALL_PRIORS, ids=lambda small: small.name)
def test_the_shape_of_any_family_is_planned_like_its_prior(small: SmallPrior, tmp_path: Path) -> None:
    """The same calls, operations, sizes and bytes of weights, without the prior; and it is said how times were found."""
    prior = small.write(tmp_path)
    shape = PriorShape.of(prior)
    assert (shape.latent_shape, shape.image_size, shape.family) == (prior.latent_shape, prior.image_size, small.family)
    guidance = 4.0 if shape.condition.key is None or shape.condition.null else 1.0
    settings = {**FAST, "inversion_guidance": guidance, "denoising_guidance": guidance}
    of_prior, of_shape = (plan(dict.fromkeys(CLASSES, 4), each, evaluation_runs=0, **settings) for each in (prior, shape))
    assert [(stage.calls, stage.flops) for stage in of_prior.stages] == [(stage.calls, stage.flops) for stage in of_shape.stages]
    assert of_prior.prior_bytes == of_shape.prior_bytes == prior.num_bytes
    guided = 2 if shape.condition.null else 1
    assert next(stage.calls for stage in of_shape.stages if stage.name == "invert") == 3 * 4 * 2 * guided
    assert any(note.startswith("times from") for note in of_shape.notes) and not any("times from" in note for note in of_prior.notes)


@pytest.mark.slow
def test_a_large_u_net_is_stood_in_for_by_one_of_fewer_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is that of the small one times the ratio of their operations."""
    shape = SHAPES["google/ddpm-cifar10-32"].with_network(block_out_channels=(32, 32, 32, 32), norm_num_groups=8)
    whole = stand_ins(shape)
    assert whole.about == "times from an untrained network of the prior's shape"
    monkeypatch.setattr(module, "total_bytes", lambda device: 1)
    thin = stand_ins(shape)
    assert "fewer blocks" in thin.about and thin.num_bytes < whole.num_bytes
    factor = prior_needs(shape).network.flops / prior_needs(thinned(shape)).network.flops
    assert factor > 1.2
    assert thin.timing(lambda prior: Timing({1: 2.0, 4: 8.0}, 1.0)) == Timing({1: 2.0 * factor, 4: 8.0 * factor}, 1.0)


@pytest.mark.slow
def test_sdxl_stand_in_is_less_than_half_of_it() -> None:
    assert thinned(LARGE).parameters < LARGE.parameters / 2
    assert thinned(LARGE).latent_shape == LARGE.latent_shape


def test_a_transformer_is_extended_from_two_depths() -> None:
    """1 block takes 2 s and 2 blocks 3 s: 28 take 29 s."""
    shape = SHAPES["SiT-XL-2-256"].with_network(attention_head_dim=4, num_attention_heads=2, num_embeds_ada_norm=1000)
    shape = replace(shape, autoencoder={**(shape.autoencoder or {}), "block_out_channels": (32,) * 4})
    standing = stand_ins(shape)
    assert [prior.network.config.num_layers for prior in standing.priors] == [1, 2]
    timings = iter([Timing({1: 2.0}), Timing({1: 3.0})])
    assert standing.timing(lambda prior: next(timings)).at(1) == 29.0
