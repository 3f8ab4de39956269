from typing import Any

import pytest

from d3hr.errors import SettingsError
from d3hr.evaluation.protocols import PROTOCOLS, Protocol, protocol_from, protocol_named

FIELDS: dict[str, Any] = {"name": "mine", "epochs": 3, "batch_size": 4, "learning_rate": 0.1}


@pytest.mark.parametrize(("ipc", "epochs", "batch"), [(1, 2000, 50), (10, 2000, 50), (20, 2000, 50), (50, 1500, 100), (100, 1000, 100)])
def test_the_papers_protocol_depends_on_the_images_per_class(ipc: int, epochs: int, batch: int) -> None:
    made = protocol_named("paper-hard", ipc=ipc)
    assert (made.epochs, made.steps, made.batch_size) == (epochs, None, batch)
    assert made.length == f"{epochs} epochs"
    assert (made.optimiser, made.learning_rate, made.weight_decay, made.decay_vectors) == ("adamw", 1e-3, 0.01, False)
    assert (made.schedule, made.mix, made.crop_scale, made.flip, made.labels) == ("half_cosine", "mixup", (0.08, 1.0), True, "hard")


def test_a_protocol_that_depends_on_the_images_per_class_asks_for_them() -> None:
    assert protocol_named("quick").length == "200 steps"
    with pytest.raises(SettingsError, match="give ipc"):
        protocol_named("paper-hard")


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(SettingsError, match="hard, quick, paper-hard"):
        protocol_named("secret")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_is_written_can_be_read(name: str) -> None:
    """The fields as JSON values, as results.json holds them, give the same protocol."""
    made = protocol_named(name, ipc=50)
    assert protocol_from(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": -1}, "protocol.learning_rate"),
        ({"optimiser": "lion"}, "protocol.optimiser"),
        ({"learning_rates": 0.1}, "protocol.learning_rates"),
        ({"name": None}, "protocol.name"),
        ({"crop_scale": [0.5]}, "protocol.crop_scale"),
        ({"crop_scale": [0.9, 0.5]}, "crop_scale is two shares"),
        ({"crop_scale": [0.5, 1.0], "shift": 0.1}, "shift and crop_scale"),
        ({"steps": 10}, "exactly one of steps and epochs"),
        ({"epochs": None}, "exactly one of steps and epochs"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        protocol_from({**FIELDS, **changes})
    assert "the fields of a protocol are: name, labels, steps" in caught.value.do


def test_a_tick_is_an_epoch_or_a_step() -> None:
    """3 epochs of 10 images in batches of 4 are 3 ticks of 3 steps; 7 steps are 7 ticks of one."""
    assert Protocol(**FIELDS).ticks(10) == (3, 3)
    assert Protocol(name="mine", steps=7, batch_size=4, learning_rate=0.1).ticks(10) == (7, 1)
