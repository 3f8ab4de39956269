from dataclasses import replace
from typing import Any

import pytest

from d3hr.distillation.presets import distill_settings
from d3hr.evaluation.protocols import protocol_named
from d3hr.planning.costs import FLOAT64, Workload, batches_of, longest_share
from d3hr.planning.plan import combine
from d3hr.planning.stages import Plan, Stage
from tests.planning.measurements import MEASURED, PRIOR, STUDENT

COUNTS = {"ant": 70, "bee": 5, "cat": 64}
D = 4 * 8 * 8


def work(counts: dict[str, int] = COUNTS, **changes: Any) -> Workload:
    return Workload(
        counts,
        distill_settings("paper", **changes),
        D,
        image_size=32,
        student="convnet3",
        protocol=protocol_named("hard"),
        student_size=32,
        test_images=0,
        evaluation_runs=3,
    )


def planned(work: Workload, predictions_per_step: float = 1.0) -> Plan:
    return combine(work, replace(MEASURED, predictions_per_step=predictions_per_step), PRIOR, STUDENT, devices=1)


def stage(name: str, work: Workload, predictions_per_step: float = 1.0) -> Stage:
    return next(stage for stage in planned(work, predictions_per_step).stages if stage.name == name)


def test_calls_of_three_classes() -> None:
    """139 images, level 31, guidance 4: 139 * 31 * 2 calls up; 30 distilled images: 30 * 31 * 2 calls down, and 30 of the decoder."""
    assert planned(work()).images == 139
    assert work().distilled == 30
    assert stage("invert", work()).calls == 8618
    assert stage("denoise", work()).calls == 1860 + 30


def test_guidance_1_needs_one_call() -> None:
    assert stage("invert", work(inversion_guidance=1.0, statistics_level=30)).calls == 139 * 30
    assert stage("invert", work(forward_process="forward_noise")).calls == 0
    assert (stage("invert", work(level=0)).calls, stage("denoise", work(level=0)).calls) == (0, 30)
    assert stage("denoise", work(denoising_guidance=1.0, denoising_level=7, ipc=3)).calls == 9 * 7 + 9


def test_a_fixed_point_makes_more_predictions() -> None:
    """6.5 predictions a step: 139 images * 31 steps * 6.5 * 2 = 56,017."""
    assert stage("invert", work(solver="fixed_point"), 6.5).calls == 56_017


def test_strides_make_fewer_predictions() -> None:
    """Level 31 in strides of 3 is 11 predictions: 139 * 11 * 2 calls. Denoising visits every level."""
    assert stage("invert", work(inversion_stride=3)).calls == 3058
    assert stage("denoise", work(inversion_stride=3)).calls == 1860 + 30


def test_classes_leave_remainder_batches() -> None:
    assert work().real_batches == {"ant": [64, 6], "bee": [5], "cat": [64]}
    assert work(ipc=150).drawn_batches == [64, 64, 22]
    assert batches_of(128, 64) == [64, 64]


def test_bytes() -> None:
    """D = 256: latents 139 * 256 * 4; mean and std of 3 classes, 4 bytes on disk and 8 in memory; 30 images of 3 * 32 * 32."""
    plan = planned(work())
    assert plan.latent_bytes == 142_336
    assert plan.statistics_bytes == 6_144
    assert work().statistics * FLOAT64 == 12_288
    assert plan.image_bytes == 92_160


def test_modes_are_looked_for_first() -> None:
    """Clusters are found among a class's latents, every n-th of more than 2,048: 5,000 images are thinned to every third, 1,667."""
    counts = {"ant": 5000, "bee": 5}
    several = work(counts, modes=10)
    assert several.clustered_batches == {"ant": [64] * 26 + [3], "bee": [5]}
    assert (stage("encode", several).calls, stage("encode", work()).calls) == (5005 + 1672, 139)
    assert work(modes=10).statistics == 10 * work().statistics
    assert work(rank=6).statistics == 4 * work().statistics  # six loadings beside mean and spread
    assert work(rank=1000).coordinates == 2 * work().dimensions
    assert stage("encode", work(counts, modes=10, max_images_per_class=100)).calls == 2 * 105


def test_the_group_search() -> None:
    """2^22 values a block hold 1638 groups of 10 * 256; two products of M * 256 * 3 MACs for M = 5000 are 15,360,000 FLOPs."""
    searching = work(num_candidates=5000)
    assert (searching.candidates, searching.block, stage("group", searching).flops) == (5000, 1638, 15_360_000)
    assert searching.group_memory == 4 * (4 * 1638 * 2560 + 3 * 1638 * 3 + 256 * 3)
    assert work(strategy="exact").candidates == stage("group", work(strategy="random")).flops == work(strategy="exact").group_memory == 0
    assert work(strategy="exact", ipc=1, num_candidates=7).candidates == 7


def test_the_student() -> None:
    """600 images in batches of 256 are three batches, of 200 on average. They are tested on 600 images in a batch of 500 and one of 100."""
    student = replace(work(ipc=200), test_images=600)
    assert (student.training_batch, student.test_batches) == (200, [500, 100])
    assert stage("evaluate", student).calls == 3 * (1000 * 200 + student.protocol.checks * 600)
    assert work({"ant": 7}, ipc=100).training_batch == 100
    statistics_alone = replace(student, keeps_images=False)
    assert (statistics_alone.training_batch, statistics_alone.test_batches) == (0, [])


@pytest.mark.parametrize(("devices", "seconds"), [(1, 24.0), (2, 12.0), (3, 9.0), (4, 8.0), (9, 8.0)])
def test_the_busiest_device_decides(devices: int, seconds: float) -> None:
    """Whole classes of 8, 7, 5, 4 s: on two devices 8 + 4 and 7 + 5; on three 8, 7, 5 + 4; never less than the longest class."""
    assert longest_share([5.0, 8.0, 4.0, 7.0], devices) == seconds


def test_a_sample_is_all_that_is_encoded_and_inverted() -> None:
    """Of 5,000, 1,300 and 10 images at a tolerance of 0.02: 1 / (0.0004 + 1/N) = 1,667, 856 and 10, but at most 1,000 if so limited."""
    counts = {"a": 5000, "b": 1300, "c": 10}
    sampled = work(counts, tolerance=0.02)
    assert sampled.matched_counts == {"a": 1667, "b": 856, "c": 10}
    assert (planned(sampled).images, sampled.matched) == (6310, 2533)
    assert stage("invert", sampled).calls == 2533 * 31 * 2
    capped = work(counts, tolerance=0.02, max_images_per_class=1000)
    assert list(capped.matched_counts.values()) == [1000, 856, 10]
