"""Training on packed sets: single pictures, in as many steps as on so many stored images."""

import re
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d3hr import DistilledSet, load_images
from d3hr.data.codec import pixels_at
from d3hr.evaluation.augmentation import Mixed
from d3hr.evaluation.evaluate import evaluate
from d3hr.evaluation.images import LabelledImages, real_images, training_images
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import hard_targets, learning_rate_at, train_and_test
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from d3hr.sets.image_set import pictures_of
from tests.conftest import MakeFolder

EPOCHS = Protocol(name="epochs", epochs=8, checks=2, batch_size=4, learning_rate=0.05)


@pytest.fixture
def packed(image_folder: MakeFolder, tmp_path: Path) -> DistilledSet:
    """Two classes of three stored images of 16 pixels, each of four pictures of 8."""
    images = load_images(image_folder({"ant": 12, "bee": 12}, size=16))
    return METHODS["random_real"].make(MethodInputs(images, 16), tmp_path / "set", ipc=3, shared=tmp_path / "shared", pack=2)


@pytest.mark.parametrize("side", [8, 16])
def test_tiles_are_cropped_and_resized_one_by_one(packed: DistilledSet, side: int) -> None:
    """The second tile of the first stored image of "bee" is its upper right quarter, resized alone: no pixel of another comes in."""
    train = training_images(packed, side)
    corner = packed.of_class("bee")[:1, :, :8, 8:]
    assert torch.equal(train.images[12 + 1], pixels_at(corner, side)[0])
    assert train.images.shape == (24, 3, side, side)
    assert train.labels.tolist() == [0] * 12 + [1] * 12
    assert (train.of_each, train.stored) == (4, 6)
    assert training_images(packed).image_size == 8


def visited(train: LabelledImages, test: LabelledImages, protocol: Protocol) -> list[list[int]]:
    """Return the positions of each step of a training."""
    steps: list[list[int]] = []
    hard = hard_targets(train.labels, 2)

    def targets(mixed: Mixed, positions: torch.Tensor) -> torch.Tensor:
        steps.append(positions.tolist())
        return hard(mixed, positions)

    train_and_test(train, test, student="convnet1", protocol=protocol, targets=targets, seed=0)
    return steps


def test_a_packed_set_takes_the_steps_of_its_stored_images(packed: DistilledSet) -> None:
    """Six stored images in batches of at most 4 are two steps of 3 an epoch, 16 in eight epochs, as without packing. Its 24 pictures are
    each seen once in every four epochs, in another order the second time."""
    test = real_images(load_images(packed.path / "train"), packed.class_names, 16)
    steps = visited(training_images(packed, 16), test, EPOCHS)
    plain = visited(LabelledImages(*packed.tensors(), packed.class_names), test, EPOCHS)
    assert [len(step) for step in steps] == [len(step) for step in plain] == [3] * 16
    first, second = (list(chain(*steps[start : start + 8])) for start in (0, 8))
    assert sorted(first) == sorted(second) == list(range(24)) and first != second
    by_steps = EPOCHS.model_copy(update={"epochs": None, "steps": 12})
    counted = Counter(chain(*visited(training_images(packed, 16), test, by_steps)))
    assert sum(counted.values()) == 36 and set(counted.values()) == {1, 2}


def test_rates_and_checks_follow_the_stored_images(packed: DistilledSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate falls once in two steps, in eight epochs of 0.05 0.5 (1 + cos(pi e / 8)); of two checks one is in the middle."""
    counts: list[tuple[int, int]] = []

    def rate(protocol: Protocol, step: int, count: int) -> float:
        counts.append((step, count))
        return learning_rate_at(protocol, step, count)

    monkeypatch.setattr("d3hr.evaluation.training.learning_rate_at", rate)
    made = evaluate(packed, load_images(packed.path / "train"), student="convnet1", protocol=EPOCHS, seeds=(0,))
    assert {count for _, count in counts} == {6} and max(step for step, _ in counts) == 15
    assert (made.pack, made.ipc, made.row().pack, made.row().ipc) == (2, 3, 2, 3)


def test_soft_labels_are_one_for_each_picture(packed: DistilledSet) -> None:
    """24 pictures, two classes, two bytes each; an online teacher is asked for single pictures, at the side of the student."""
    teacher = Teacher(new_student("convnet1", 2, 16).eval(), "convnet1", ("ant", "bee"), 16, {})
    test = load_images(packed.path / "train")
    stored = EPOCHS.model_copy(update={"epochs": 1, "labels": "stored", "name": "stored"})
    made = evaluate(packed, test, student="convnet1", protocol=stored, teacher=teacher, seeds=(0,))
    assert made.soft_label_bytes == 24 * 2 * 2
    online = stored.model_copy(update={"labels": "online", "name": "online"})
    assert evaluate(packed, test, student="convnet1", protocol=online, teacher=teacher, seeds=(0,)).soft_label_bytes == 0


def test_crops_are_of_the_stored_tiles(packed: DistilledSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where crops are of the stored images, tiles keep their 8 pixels and are resized once, by the crop, to the 16 of the test images."""
    sides: list[tuple[int, int]] = []

    def spied(train: LabelledImages, test: LabelledImages, **options: object) -> object:
        sides.append((train.image_size, test.image_size))
        return train_and_test(train, test, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("d3hr.evaluation.tasks.train_and_test", spied)
    protocol = EPOCHS.model_copy(update={"epochs": 1, "crop_scale": (0.5, 1.0), "crop_stored": True})
    for side in (None, 12):
        evaluate(packed, load_images(packed.path / "train"), student="convnet1", protocol=protocol, seeds=(0,), image_size=side)
    assert sides == [(8, 16), (8, 12)]


def test_the_recipe_for_other_trainers_reads_the_same_pictures(packed: DistilledSet) -> None:
    """The code on the page, as it is written there, on a set's plain folder."""
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Tiles" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    tiles = names["Tiles"](packed.path, np.asarray)
    images, labels = pictures_of(packed).tensors()
    assert len(tiles) == len(images) == 24
    assert [label for _, label in tiles] == labels.tolist()
    assert all((tiles[place][0] == image.permute(1, 2, 0).numpy()).all() for place, image in enumerate(images))
