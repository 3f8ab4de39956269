from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import evaluate, load_images
from d3hr.comparison.trainings import Setting, evaluate_once
from d3hr.errors import SettingsError
from d3hr.evaluation.protocols import Protocol, protocol_from, protocol_named, protocol_names
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.prior.precision import Units
from tests.conftest import MakeFolder

FIELDS: dict[str, Any] = {"name": "mine", "epochs": 3, "batch_size": 4, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("ipc", "classes", "epochs", "batch"),
    [
        (1, 10, 1000, 15),
        (9, 99, 1000, 15),
        (10, 10, 2000, 50),
        (20, 10, 2000, 50),
        (50, 10, 1500, 100),
        (100, 10, 1000, 100),
        (1, 100, 1000, 30),
        (10, 200, 2000, 100),
        (50, 1000, 1500, 200),
    ],
)
def test_the_papers_protocol_depends_on_images_per_class_and_classes(ipc: int, classes: int, epochs: int, batch: int) -> None:
    """Batches of 15, from 10 images per class on 50, from 50 on 100; twice these from 100 classes on, at the same epochs."""
    made = protocol_named("paper-hard", ipc=ipc, classes=classes)
    assert (made.epochs, made.steps, made.batch_size) == (epochs, None, batch)
    assert made.length == f"{epochs} epochs"
    assert (made.optimiser, made.learning_rate, made.weight_decay, made.decay_vectors) == ("adamw", 1e-3, 0.01, False)
    assert (made.schedule, made.mix, made.crop_scale, made.flip, made.labels) == ("half_cosine", "mixup", (0.08, 1.0), True, "hard")


def test_a_protocol_that_depends_on_a_number_asks_for_it() -> None:
    assert protocol_named("quick").length == "200 steps"
    with pytest.raises(SettingsError, match="number of images per class is not known"):
        protocol_named("paper-hard", classes=10)
    with pytest.raises(SettingsError, match="number of classes is not known"):
        protocol_named("paper-hard", ipc=10)


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(SettingsError, match="hard, paper-cifar, paper-hard"):
        protocol_named("secret")


@pytest.mark.parametrize("name", protocol_names())
def test_what_is_written_can_be_read(name: str) -> None:
    """The fields as JSON values, as results.json holds them, give the same protocol."""
    made = protocol_named(name, ipc=50, classes=10)
    assert protocol_from(made.model_dump(mode="json")) == made


def test_results_of_older_versions_can_be_read() -> None:
    """Protocols kept before a field existed take its default."""
    kept = protocol_named("paper-hard", ipc=10, classes=10).model_dump(mode="json")
    for new in ("learning_rate_by_student", "crop_stored", "test_crop", "best_from"):
        del kept[new]
    made = protocol_from(kept)
    assert (made.learning_rate_by_student, made.crop_stored, made.test_crop, made.best_from) == ({}, False, 1.0, 0)


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
        ({"crop_stored": True}, "crop_stored needs crop_scale"),
        ({"test_crop": 0}, "protocol.test_crop"),
        ({"learning_rate_by_student": {"vit-t": 0}}, "protocol.learning_rate_by_student.vit-t"),
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
    ("name", "ipc", "classes", "epochs", "batch"),
    [
        ("paper-cifar", 1, 10, 400, 15),
        ("paper-cifar", 10, 10, 400, 50),
        ("paper-cifar", 50, 10, 400, 100),
        ("paper-cifar", 10, 100, 400, 100),
        ("paper-imagenet", 50, 10, 300, 100),
        ("paper-imagenet", 50, 1000, 300, 200),
        ("rd3", 100, 10, 400, 50),
        ("rd3", 1, 1000, 400, 50),
    ],
)
def test_the_papers_soft_label_protocol(name: str, ipc: int, classes: int, epochs: int, batch: int) -> None:
    """A teacher asked about every CutMix batch, KL at T = 20, AdamW, half-cosine; rd3 has one batch size for all."""
    made = protocol_named(name, ipc=ipc, classes=classes)
    assert (made.crop_stored, made.best_from, made.test_crop) == (True, 291, 0.875 if name == "paper-imagenet" else 1)
    assert (made.name, made.epochs, made.batch_size) == (name, epochs, batch)
    assert (made.labels, made.temperature, made.mix, made.crop_scale, made.flip) == ("online", 20, "cutmix", (0.08, 1.0), True)
    assert (made.optimiser, made.learning_rate, made.schedule, made.weight_decay, made.decay_vectors) == (
        "adamw",
        1e-3,
        "half_cosine",
        0.01,
        False,
    )
    assert protocol_named("stored", ipc=10, classes=10).labels == "stored"


@pytest.mark.parametrize(
    ("student", "rate"),
    [("resnet18", 1e-3), ("convnet3", 1e-3), ("efficientnet-b0", 2e-3), ("mobilenetv2", 2.5e-3), ("vit-t", 1e-4), ("swin-t", 1e-4)],
)
def test_some_students_have_a_learning_rate_of_their_own(student: str, rate: float) -> None:
    for name in ("paper-cifar", "paper-hard"):
        assert protocol_named(name, ipc=10, classes=10).for_student(student).learning_rate == rate


def test_teachers_learn_from_labels_that_are_not_smoothed() -> None:
    """Smoothing takes from soft labels what they say of similar classes (arXiv 1906.02629)."""
    assert protocol_named("teacher").label_smoothing == 0


def test_a_file_of_ones_own_starts_from_a_named_one(tmp_path: Path) -> None:
    """Its name is the file's; what it does not say is its base's, and what it says for a number of images per class comes last."""
    file = tmp_path / "no-flips.yaml"
    file.write_text("base: teacher\nflip: false\nby_ipc: {5: {epochs: 7}}\n")
    made, base = protocol_named(file, ipc=5), protocol_named("teacher")
    assert made == base.model_copy(update={"name": "no-flips", "flip": False, "epochs": 7})
    assert protocol_named(file, ipc=4).epochs == base.epochs


def test_what_a_file_says_itself_wins_over_all_of_its_base(tmp_path: Path) -> None:
    """Also over what the base says for a number; what the file says for a number comes after its own fields, classes last."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: paper-hard\nepochs: 3\nby_ipc: {50: {batch_size: 7}}\nby_classes: {20: {batch_size: 8, by_ipc: {60: {flip: false}}}}\n"
    )
    made = [protocol_named(file, ipc=ipc, classes=classes) for ipc, classes in ((10, 10), (50, 10), (50, 20), (60, 20))]
    assert [(each.epochs, each.batch_size, each.flip) for each in made] == [(3, 50, True), (3, 7, True), (3, 8, True), (3, 8, False)]


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
        ("by_classes: [1]", "by_classes"),
        ("by_classes: {1: {by_ipc: 3}}", "by_ipc"),
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
        protocol_named(file, ipc=1, classes=2)
    with pytest.raises(SettingsError, match="Unknown protocol"):
        protocol_named(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("units", "side", "expected"),
    [
        (Units("cpu"), 224, "fp32"),
        (Units("cpu", amx=True), 224, "bf16"),
        (Units("cuda", (8, 0)), 64, "bf16"),
        (Units("cuda", (8, 0)), 32, "fp32"),
        (Units("cuda", (7, 5)), 224, "fp32"),
        (Units("mps"), 224, "fp32"),
    ],
)
def test_large_images_are_trained_on_in_what_the_device_has_units_for(
    units: Units, side: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teachers and the paper's students; a protocol that states its precision keeps it everywhere."""
    monkeypatch.setattr(Units, "of", classmethod(lambda _, device: units))
    for name in ("teacher", "paper-cifar", "paper-imagenet", "stored", "paper-hard"):
        assert protocol_named(name, ipc=10, classes=10).on(torch.device("cpu"), side).precision == expected
    for stated in ("fp32", "bf16"):
        assert protocol_named("hard").model_copy(update={"precision": stated}).on(torch.device("cpu"), side).precision == stated


@pytest.mark.slow
def test_a_result_says_the_precision_of_its_training(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ``auto``: a teacher and a student trained where there are units for bfloat16 are others than those without."""
    images = load_images(image_folder({"ant": 4, "bee": 4}, size=64))
    short = {"steps": 1, "batch_size": 4, "learning_rate": 0.01, "checks": 1, "precision": "auto"}
    (tmp_path / "trainings").mkdir()
    for units, expected in ((Units("cpu"), "fp32"), (Units("cpu", amx=True), "bf16")):
        monkeypatch.setattr(Units, "of", classmethod(lambda _, device, units=units: units))
        protocol = protocol_from({"name": "short", **short})
        row = evaluate_once(images, images, Setting("convnet1", protocol), 0, tmp_path / "trainings")
        assert row.protocol.precision == expected
        assert evaluate(images, images, student="convnet1", protocol=protocol, seeds=(0,)).protocol.precision == expected
        made = train_teacher(images, tmp_path / expected, test=images, student="convnet1", protocol=protocol)
        assert made.about["protocol"]["precision"] == expected
    assert len(list((tmp_path / "trainings").iterdir())) == 2
