"""Plans of data and machines that are not at hand: every figure by hand from round rates."""

import json
import pickle
from typing import Any

import pytest

from d3hr import load_images
from d3hr.distillation.presets import distill_settings
from d3hr.errors import SettingsError
from d3hr.planning.beyond import ScalePlan, at_scale, plan_beyond
from d3hr.planning.limits import REMEDIES, breaking_point, needs
from d3hr.planning.machines import MOST_IMAGES, Machines
from d3hr.planning.rates import PHOTO, Rates, measured_rates, photo
from d3hr.planning.scale import INDEX_BYTES, NAME_BYTES, Scale, ScaleStage
from d3hr.planning.shapes import PriorShape
from tests.conftest import MakeFolder, untrained_prior
from tests.planning.measurements import PRIOR

RATES = Rates("an abacus", device_flops=1e6, look=0.8, decode=1.6, noise=2.0**22, merge=0.5, write=2.0, choose=0.01)
MACHINES = Machines(
    devices_per_node=2, cores_per_node=8, node_memory=1e6, storage_rate=100, network_rate=1000, image_bytes=10, task_seconds=3
)
REAL: dict[str, Any] = {"candidates": "real", "statistics_level": 0, "denoising_level": 0}


def scale(images: int = 102_400, classes: int = 10, devices: int = 4, **options: Any) -> Scale:
    settings = distill_settings("paper", **{"num_candidates": 1000, **options})
    return Scale(images, classes, devices, settings, 16, 8, PRIOR, MACHINES, RATES)


def stage(of: Scale, name: str) -> ScaleStage:
    return next(stage for stage in of.stages() if stage.name == name)


def test_seconds_by_hand() -> None:
    """10,240 images of each of 10 classes are 20 chunks of 512; 4 devices in 2 machines of 8 cores each."""
    question = scale()
    assert (question.nodes, question.cores, question.per_class) == (2, 16, 10_240)
    found = {each.name: (each.seconds, each.designed) for each in question.stages()}
    assert found["look at every image"] == pytest.approx((102_400 * 0.1, 102_400 * 0.05))
    assert found["read what is inverted"] == pytest.approx((102_400 * 0.1 / 2,) * 2)
    assert found["decode what is inverted"] == pytest.approx((102_400 * 1.6 / 16,) * 2)
    # Guidance 4 to level 31: 62 calls of 1,000 operations, and 200 of the encoder; 200 chunks are 50 rounds of four devices.
    assert found["encode and invert"] == pytest.approx((50 * 512 * 62_200 / 1e6,) * 2)
    assert found["give out tasks"] == pytest.approx((200 * 3, 200 * 3))
    # A chunk is mean and deviation of 16 dimensions, 8 bytes each: 256; 51 s on the wire, 100 s to merge.
    assert found["merge statistics"] == pytest.approx((100, 10 * (0.5 + 0.256) + (51.2 + 100) / 2))
    assert found["search"][0] == pytest.approx(1 + 4 * 1000 * 16 * 10 / 1e6)
    assert found["draw"] == pytest.approx((3 * 10 * (62_000 + 300) / 1e6,) * 2)
    assert found["write"] == pytest.approx((200 / 8, 100 / 8))


def test_phases_follow_one_another_and_their_stages_overlap() -> None:
    plan = at_scale(scale())
    assert plan.seconds == pytest.approx(10_240 + 10_240 + 1.64 + 25)
    assert plan.designed == pytest.approx(5_120 + 10_240 + 1.64 + 12.5)
    assert plan.longest.name == "look at every image"


def test_more_devices_than_tasks_do_not_help() -> None:
    few, many = (stage(scale(images=5_120, devices=devices), "encode and invert").seconds for devices in (10, 1000))
    assert few == many == pytest.approx(512 * 62_200 / 1e6)
    with_few_tasks = stage(scale(images=10**8, devices=4), "give out tasks")
    assert (with_few_tasks.seconds, with_few_tasks.designed) == (3 * 195_320, 3 * 400)


def test_a_sample_does_not_grow_with_the_images() -> None:
    """At a tolerance of 0.1 about a hundred images of each class are inverted, by one task each; all are looked at."""
    small, large = (scale(images=images, tolerance=0.1) for images in (10**7, 10**10))
    assert (small.matched, large.matched, large.chunks.chunks) == (100, 100, 1)
    assert stage(small, "encode and invert").seconds == stage(large, "encode and invert").seconds
    assert stage(large, "look at every image").seconds == 1000 * stage(small, "look at every image").seconds


def test_chosen_images_need_no_device() -> None:
    """Eight bytes a feature, 192 features, three copies; a shortlist of 100 images of each class bounds it."""
    question = scale(**REAL)
    names = [each.name for each in question.stages()]
    assert names == ["look at every image", "read what is compared", "decode what is compared", "choose", "write"]
    assert stage(question, "choose").seconds == pytest.approx(3 * 10_240 * 0.01)
    assert question.features_bytes == 3 * 8 * 192 * 10_240
    assert scale(max_images_per_class=100, **REAL).features_bytes == 3 * 8 * 192 * 100


def test_bytes_by_hand() -> None:
    question = scale(modes=2, rank=3)
    assert question.statistics_bytes == 4 * 10 * 2 * (2 + 3) * 16
    assert question.chunk_bytes == 8 * 2 * (2 + 6) * 16
    assert question.index_bytes == 102_400 * (INDEX_BYTES + NAME_BYTES)
    assert scale(strategy="exact").search_bytes == 0


def test_what_breaks_first() -> None:
    """A machine of two processes and the copy that they are sent holds three indices; a day is 864,000 images of a tenth of a second."""
    plan = at_scale(scale(images=10_000))
    first, *_ = plan.limits
    assert first.name == "memory: search" and first.images == 20  # at any number: it grows with the classes
    index = next(limit for limit in plan.limits if limit.name == "memory: index")
    assert (index.need, index.broken) == (3 * 72 * 10_000, True)
    assert index.images == pytest.approx(1e6 / 216, rel=0.01)
    look = next(limit for limit in plan.limits if limit.name == "look at every image")
    assert not look.broken and look.images == pytest.approx(864_000, rel=0.01)
    assert breaking_point(plan.scale, "write", 86_400.0) is None
    assert [limit.broken for limit in plan.limits[:2]] == [True, True]
    assert next(limit for limit in at_scale(scale()).limits if limit.name == "write").images is None


def test_everything_that_can_break_has_a_remedy() -> None:
    for question in (scale(), scale(**REAL), scale(candidates="mixed")):
        assert needs(question).keys() <= REMEDIES.keys()
        assert all(value > 0 for value in needs(question).values())


def test_text_and_json() -> None:
    plan = at_scale(scale())
    values = json.loads(json.dumps(plan.as_values()))
    assert values["seconds"] == pytest.approx(plan.seconds)
    assert [entry["name"] for entry in values["stages"]] == [each.name for each in plan.stages]
    text = plan.as_text()
    for words in ("102,400 images of 10 classes into 100", "4 devices in 2 machine(s)", "one machine", "what breaks first", "an abacus"):
        assert words in text


def test_the_index_is_as_large_as_stated(image_folder: MakeFolder) -> None:
    """What grows with the images in the bytes that a process is sent: what is stated, and the length of a name."""
    few = len(pickle.dumps(load_images(image_folder({"ant": 100, "bee": 100}))))
    more = len(pickle.dumps(load_images(image_folder({"cat": 100, "dog": 100}, size=9))))
    assert 0 < (more - few) / 200 < INDEX_BYTES + len("ant/00.png") + 1  # two more classes take some bytes too


def test_rates_are_measured() -> None:
    shape = PriorShape.of(untrained_prior(("ant", "bee")))
    settings = distill_settings("paper", num_candidates=10, candidates="mixed", ipc=4)
    given = measured_rates(shape, PRIOR, settings, Machines(device_flops=123.0, image_bytes=2 * len(photo())))
    once = measured_rates(shape, PRIOR, settings, Machines(device_flops=123.0, image_bytes=len(photo())))
    assert (given.device, given.device_flops) == ("given", 123.0)
    assert 0.8 * once.decode < given.decode < 10 * once.decode
    assert all(value > 0 for name, value in vars(given).items() if name != "device")
    assert 0.2 < len(photo()) / (PHOTO[0] * PHOTO[1]) < 1.2  # a photo of this size has about 0.6 bytes a pixel


@pytest.mark.slow
def test_a_shape_is_planned() -> None:
    shape = PriorShape.of(untrained_prior(("ant", "bee")))
    plan = plan_beyond(10**9, 20_000, shape, devices=1000, preset="gentle")
    assert isinstance(plan, ScalePlan)
    assert plan.scale.rates.device.startswith("cpu") and plan.scale.rates.device_flops > 1e6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": 30}, "at least two"),
        ({"classes": 1}, "--classes"),
        ({"devices": 0}, "--devices"),
        ({"preset": "best"}, "best"),
        ({"machines": Machines(storage_rate=0.0)}, "--storage-rate"),
    ],
)
def test_bad_input(changes: dict[str, Any], words: str) -> None:
    shape = PriorShape.of(untrained_prior(("ant", "bee")))
    with pytest.raises(SettingsError, match=words):
        plan_beyond(**{"images": 1000, "classes": 20, "shape": shape, **changes})


def test_no_plan_reaches_beyond_what_is_looked_for() -> None:
    assert breaking_point(scale(), "look at every image", 1e300) is None
    assert MOST_IMAGES == 10**15
