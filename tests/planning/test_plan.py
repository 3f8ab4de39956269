import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from d3hr import ImageData, Prior
from d3hr.distillation.presets import distill_settings
from d3hr.errors import ClassMismatch, DataError, SettingsError
from d3hr.evaluation.protocols import protocol_named
from d3hr.planning.costs import Workload
from d3hr.planning.measure import Timing
from d3hr.planning.plan import combine, plan
from d3hr.planning.probe import Measured, _grouping
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stages import Plan
from tests.planning.measurements import MEASURED, PRIOR, STUDENT

FAST: dict[str, Any] = {"steps": 5, "statistics_level": 2, "denoising_level": 2, "num_candidates": 20}


def planned(devices: int = 1, measured: Measured = MEASURED, **changes: Any) -> Plan:
    settings = distill_settings("paper", num_candidates=1000, **changes)
    work = Workload(
        {"ant": 64, "bee": 16, "cat": 32},
        settings,
        dimensions=16,
        image_size=8,
        student="convnet3",
        protocol=protocol_named("quick"),
        student_size=8,
        test_images=100,
        evaluation_runs=2,
    )
    return combine(work, measured, PRIOR, STUDENT, devices=devices)


def stage(of: Plan, name: str) -> Any:
    return next(stage for stage in of.stages if stage.name == name)


def test_seconds_by_hand() -> None:
    """112 images of 3 classes, a hundredth of a second each to read, a tenth to encode, one a step to invert, over 31 levels."""
    plan = planned()
    assert stage(plan, "check the images").seconds == pytest.approx(0.16 + 0.32 + 0.64)
    assert stage(plan, "fingerprint the prior").seconds == pytest.approx(1.0)
    assert stage(plan, "encode").seconds == pytest.approx(1.12 + 11.2 + 3 * 0.25 + 1.0)
    assert stage(plan, "invert").seconds == pytest.approx(31 * 112 + 2)
    assert stage(plan, "group").seconds == pytest.approx(3 + 3 * 0.5)
    assert stage(plan, "denoise").seconds == pytest.approx(3 * (31 * 10 + 5 + 10 * 0.1) + 4)
    # Two runs: one step takes 2 s, every further one 1 s; ten tests of 8 s each; 30 + 100 images are read.
    assert stage(plan, "evaluate").seconds == pytest.approx(2 * (2 + 199 + 80) + 1.3)
    assert plan.distillation_seconds == pytest.approx(plan.seconds - 1.12 - stage(plan, "evaluate").seconds)


def test_the_search_is_measured_where_it_will_run() -> None:
    """On the device of the prior: of a device without memory its scores cannot be read."""
    work = Workload(
        {"ant": 4, "bee": 4},
        distill_settings("paper", num_candidates=10),
        dimensions=16,
        image_size=8,
        student="convnet3",
        protocol=protocol_named("quick"),
        student_size=8,
        test_images=0,
        evaluation_runs=0,
    )
    searched, _ = _grouping(work, torch.device("cpu"))
    assert set(searched.seconds) == {10}
    with pytest.raises(NotImplementedError, match="meta tensor"):
        _grouping(work, torch.device("meta"))


def test_flops_by_hand() -> None:
    plan = planned()
    assert stage(plan, "encode").flops == 112 * 200
    assert stage(plan, "invert").flops == 112 * 31 * 2 * 1000
    assert stage(plan, "denoise").flops == 30 * (31 * 2 * 1000 + 300)
    assert stage(plan, "group").flops == 2 * 2 * 1000 * 16 * 3
    assert stage(plan, "evaluate").flops == 2 * (200 * 30 * 20 + 10 * 100 * 7)


def test_classes_are_shared_out_over_devices() -> None:
    """64, 32 and 16 images on two devices: 64 on one, 48 on the other. Grouping and evaluation stay on one."""
    alone, shared = planned(1), planned(2)
    assert stage(shared, "invert").seconds_shared == pytest.approx(31 * 64 + 2)
    assert stage(shared, "invert").seconds == stage(alone, "invert").seconds == stage(alone, "invert").seconds_shared
    assert stage(shared, "denoise").seconds_shared == pytest.approx(2 * (31 * 10 + 5 + 1) + 4)
    for name in ("group", "evaluate", "check the images"):
        assert stage(shared, name).seconds_shared == stage(shared, name).seconds
    assert planned(3).seconds_shared == pytest.approx(planned(30).seconds_shared)


def test_memory_is_what_was_seen_and_what_is_kept() -> None:
    """Kept: 30 images of 192 bytes and 100 test images, each twice while they are joined; more than statistics of 2 * 16 * 8."""
    assert planned().peak_bytes == 10_000 + 2 * 192 * (30 + 100)
    assert planned(modes=30, rank=16).peak_bytes == 10_000 + 8 * 30 * (2 + 16) * 16  # statistics in float64, of one class at a time


def test_memory_of_batches_that_were_not_run() -> None:
    """A batch of 64 images in the encoder holds 64 * 40 bytes, guided in the transformer 64 * 2 * 10; the search holds more."""
    partial = planned(measured=replace(MEASURED, encode=Timing({1: 0.1}, complete=False)), ipc=10)
    assert partial.peak_bytes == 500 + partial.group_bytes + 2 * 192 * 130
    unsearched = planned(measured=replace(MEASURED, encode=Timing({1: 0.1}, complete=False), peak=0), strategy="exact")
    assert unsearched.peak_bytes == 500 + 64 * 40 + 2 * 192 * 130
    assert any("smaller ones" in note for note in partial.notes)


def test_text_and_json() -> None:
    plan = planned(4)
    values = json.loads(json.dumps(plan.as_values()))
    assert [entry["name"] for entry in values["stages"]] == [entry.name for entry in plan.stages]
    assert values["seconds"] == pytest.approx(plan.seconds)
    text = plan.as_text()
    for words in ("an abacus", "on 4 devices", "invert", "58 min", "total", "Memory:", "Disk:"):
        assert words in text
    assert "devices" not in planned().as_text()


@pytest.mark.slow
def test_a_prior_is_measured(digits: ImageData, digits_prior: Prior) -> None:
    plan_of_digits = plan(digits.counts, digits_prior, images=digits, test_images=50, ipc=2, protocol="quick", modes=2, rank=8, **FAST)
    assert plan_of_digits.statistics_bytes == 10 * 2 * (2 + 8) * 64 * 4
    assert [note.split()[0] for note in plan_of_digits.notes] == ["clustering", "finding"]
    assert plan_of_digits.images == 1197
    assert stage(plan_of_digits, "invert").calls == 1197 * 2 * 2
    assert all(part.seconds > 0 for part in plan_of_digits.stages)
    assert plan_of_digits.seconds_shared == pytest.approx(plan_of_digits.seconds)
    assert plan_of_digits.peak_bytes > 2**26


@pytest.mark.slow
def test_a_shape_is_measured(digits: ImageData, digits_prior: Prior) -> None:
    """A shape alone gives the same calls and FLOPs as the prior itself, and says that its times are extended."""
    settings = {"ipc": 2, "protocol": "quick", "solver": "fixed_point", **FAST}
    of_prior = plan(digits.counts, digits_prior, **settings)
    of_shape = plan(digits.counts, PriorShape.of(digits_prior), **settings)
    assert stage(of_shape, "denoise").flops == stage(of_prior, "denoise").flops
    assert stage(of_prior, "invert").calls > 1197 * 2 * 2
    assert of_shape.prior_bytes == of_prior.prior_bytes
    assert len(of_shape.notes) > len(of_prior.notes)


COUNTS = {"0": 5, "1": 7}


@pytest.mark.parametrize(
    ("counts", "options", "error"),
    [
        ({}, {}, DataError),
        ({"0": 5, "1": 1}, {}, DataError),
        ({"0": 5, "ant": 5}, {}, ClassMismatch),
        (COUNTS, {"devices": 0}, SettingsError),
        (COUNTS, {"test_images": -1}, SettingsError),
        (COUNTS, {"preset": "best"}, SettingsError),
        (COUNTS, {"steps": 5000}, SettingsError),
        (COUNTS, {"protocol": "best"}, SettingsError),
        (COUNTS, {"student": "convnet9"}, SettingsError),
    ],
)
def test_bad_input(digits_prior: Prior, counts: dict[str, int], options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        plan(counts, digits_prior, **options)


@pytest.mark.slow
def test_planning_leaves_the_random_state_alone(digits_prior: Prior) -> None:
    state = torch.random.get_rng_state()
    plan(COUNTS, digits_prior, ipc=1, protocol="quick", **FAST)
    assert torch.equal(torch.random.get_rng_state(), state)
