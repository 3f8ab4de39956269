from pathlib import Path
from typing import Any

import pytest

from d3hr.errors import SettingsError
from d3hr.evaluation.protocols import Protocol, protocol_from, protocol_named, protocol_names

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
    with pytest.raises(SettingsError, match="hard, paper-cifar, paper-hard"):
        protocol_named("secret")


@pytest.mark.parametrize("name", protocol_names())
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
        ({"temperature": 4}, "temperature is for soft labels"),
        ({"labels": "online", "label_smoothing": 0.1}, "label_smoothing is for hard labels"),
        ({"optimiser": "adamw", "nesterov": True}, "nesterov is for sgd"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        protocol_from({**FIELDS, **changes})
    assert "the fields of a protocol are: name, labels, temperature" in caught.value.hint


def test_a_tick_is_an_epoch_or_a_step() -> None:
    """3 epochs of 10 images in batches of 4 are 3 ticks of 3 steps; 7 steps are 7 ticks of one."""
    assert Protocol(**FIELDS).ticks(10) == (3, 3)
    assert Protocol(name="mine", steps=7, batch_size=4, learning_rate=0.1).ticks(10) == (7, 1)


@pytest.mark.parametrize(
    ("name", "ipc", "epochs", "batch"),
    [("paper-cifar", 10, 400, 50), ("paper-cifar", 50, 400, 100), ("paper-imagenet", 50, 300, 100), ("rd3", 100, 400, 50)],
)
def test_the_papers_soft_label_protocol(name: str, ipc: int, epochs: int, batch: int) -> None:
    """A teacher asked about every CutMix batch, KL at T = 20, AdamW, half-cosine; rd3 has one batch size for all."""
    made = protocol_named(name, ipc=ipc)
    assert (made.name, made.epochs, made.batch_size) == (name, epochs, batch)
    assert (made.labels, made.temperature, made.mix, made.crop_scale, made.flip) == ("online", 20, "cutmix", (0.08, 1.0), True)
    assert (made.optimiser, made.learning_rate, made.schedule, made.weight_decay, made.decay_vectors) == (
        "adamw",
        1e-3,
        "half_cosine",
        0.01,
        False,
    )
    assert protocol_named("stored", ipc=10).labels == "stored"


def test_a_file_of_ones_own_starts_from_a_named_one(tmp_path: Path) -> None:
    """Its name is the file's; what it does not say is its base's, and what it says for a number of images per class comes last."""
    file = tmp_path / "no-flips.yaml"
    file.write_text("base: teacher\nflip: false\nby_ipc: {5: {epochs: 7}}\n")
    made, base = protocol_named(file, ipc=5), protocol_named("teacher")
    assert made == base.model_copy(update={"name": "no-flips", "flip": False, "epochs": 7})
    assert protocol_named(file, ipc=4).epochs == base.epochs


def test_a_file_may_start_from_another_beside_it(tmp_path: Path) -> None:
    """Wherever it is asked for from; and two files that start from each other are refused."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("base: teacher\nflip: false\nby_ipc: {5: {epochs: 7}}\n")
    second.write_text("base: first.yaml\nshift: 0.25\n")
    expected = protocol_named(first, ipc=5).model_copy(update={"name": "second", "shift": 0.25})
    assert protocol_named(second, ipc=5) == expected
    first.write_text("base: second.yaml\n")
    with pytest.raises(SettingsError, match="or from itself"):
        protocol_named(second, ipc=5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- flip", "is not a mapping"),
        ("base: secret", "unknown protocol"),
        ("by_ipc: {ten: {}}", "by_ipc"),
        ("a: [", "is not YAML"),
        ("base: hard\nflips: true", "protocol.flips"),
        ("base: mine.yaml", "or from itself"),
        ("base: missing.yaml", "missing.yaml"),
    ],
)
def test_a_damaged_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        protocol_named(file, ipc=1)
    with pytest.raises(SettingsError, match="Unknown protocol"):
        protocol_named(tmp_path / "missing.yaml")
