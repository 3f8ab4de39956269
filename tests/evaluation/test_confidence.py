from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d3hr import ImageData, load_images
from d3hr.errors import ClassMismatch, SettingsError
from d3hr.evaluation.confidence import (
    _folds,
    cross_validated_probabilities,
    doubtful,
    own_confidence,
    teacher_probabilities,
)
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import read_tensors, write_tensors
from tests.conftest import MakeFolder, tree

BRIEF = protocol_named("confidence", ipc=9, classes=2).model_copy(update={"epochs": 12, "shift": 0.0, "flip": False})


def test_the_own_confidence_is_the_probability_of_the_own_class() -> None:
    assert own_confidence(torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1]]), 1).tolist() == pytest.approx([0.5, 0.8])


def test_doubtful_labels_by_hand() -> None:
    """Thresholds, means of the own class: a (0.9 + 0.4 + 0.5) / 3 = 0.6, b (0.8 + 0.7 + 0.3) / 3 = 0.6, c (0.3 + 0.4) / 2 = 0.35.

    a: 0.9 reaches a alone; 0.4, 0.55, 0.05 reaches nothing, though b is its most probable; 0.5, 0, 0.5 reaches c alone and is doubtful,
    though a is as probable. b: 0.8 and 0.7 keep their label; 0.3, 0.3, 0.4 reaches c. c: 0.3, 0.3, 0.4 keeps it; 0.65, 0.05, 0.3 is like
    a, the only one reached.
    """
    probabilities = {
        "a": torch.tensor([[0.9, 0.1, 0.0], [0.4, 0.55, 0.05], [0.5, 0.0, 0.5]]),
        "b": torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]]),
        "c": torch.tensor([[0.3, 0.3, 0.4], [0.65, 0.05, 0.3]]),
    }
    assert {name: found.tolist() for name, found in doubtful(probabilities).items()} == {
        "a": [False, False, True],
        "b": [False, False, True],
        "c": [False, True],
    }


def test_of_several_classes_that_are_reached_the_most_probable_counts() -> None:
    """Both thresholds are 0.4: an image of 0.55 and 0.45 reaches both and keeps the label a; one of 0.45 and 0.55 does not.

    One of 0.2 and exactly 0.4 reaches b, just.
    """
    a = torch.tensor([[0.55, 0.45], [0.45, 0.55], [0.2, 0.4]])
    b = torch.tensor([[0.1, 0.4], [0.1, 0.4]])
    assert doubtful({"a": a, "b": b})["a"].tolist() == [False, True, True]


def test_where_all_are_alike_none_is_doubtful() -> None:
    """Equal rows reach both thresholds as exactly as a mean of equal numbers is one of them, and look like both classes alike."""
    rows = torch.full((7, 2), 0.1)
    assert not any(found.any() for found in doubtful({"a": rows, "b": rows[:3]}).values())


def test_probabilities_of_a_teacher_follow_the_classes_of_the_images(image_folder: MakeFolder) -> None:
    """Columns in the order of the images' classes, not of the teacher's; rows in the order of the images; each sums to 1."""
    images = load_images(image_folder({"a": 3, "b": 2}))
    teacher = Teacher(new_student("convnet1", 2, 8).eval(), "convnet1", ("b", "a"), 8, {})
    found = teacher_probabilities(teacher, images)
    assert {name: tuple(rows.shape) for name, rows in found.items()} == {"a": (3, 2), "b": (2, 2)}
    torch.testing.assert_close(found["a"], teacher.logits(images.pick("a", range(3))).flip(1).softmax(dim=1))
    torch.testing.assert_close(torch.cat(list(found.values())).sum(dim=1), torch.ones(5))
    with pytest.raises(ClassMismatch):
        teacher_probabilities(Teacher(teacher.network, "convnet1", ("b", "c"), 8, {}), images)


def test_folds_are_even_and_each_class_has_its_own() -> None:
    """Seven images in three folds are 3, 2 and 2 in some order of their own; another class or another seed changes nothing or all."""
    alone = _folds({"a": 7}, 3, seed=0)
    assert sorted(torch.bincount(alone).tolist()) == [2, 2, 3]
    assert torch.equal(_folds({"b": 4, "a": 7}, 3, seed=0)[4:], alone)
    assert not torch.equal(_folds({"a": 70}, 3, seed=0), _folds({"a": 70}, 3, seed=1))


@pytest.fixture
def colours(tmp_path: Path) -> ImageData:
    """Eight light and eight dark images in classes of these names, and in each class, as its last, one that belongs to the other."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(9):
            mean = level if index < 8 else 240 - level
            pixels = rng.integers(mean - 30, mean + 30, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return load_images(tmp_path / "images")


def judged(images: ImageData, folder: Path, seed: int = 0) -> dict[str, Tensor]:
    folder.mkdir(exist_ok=True)
    return cross_validated_probabilities(images, folder, student="convnet1", protocol=BRIEF, folds=3, seed=seed)


def test_networks_that_have_not_seen_an_image_find_its_wrong_label(colours: ImageData, tmp_path: Path) -> None:
    """The one light image among the dark and the dark one among the light are doubtful, no others; each is judged, rows sum to 1.

    A network that was trained on them with their labels, as one that sees all of 18 images would be, has them right in the end.
    """
    probabilities = judged(colours, tmp_path / "kept")
    assert {name: tuple(rows.shape) for name, rows in probabilities.items()} == {"dark": (9, 2), "light": (9, 2)}
    torch.testing.assert_close(torch.cat(list(probabilities.values())).sum(dim=1), torch.ones(18))
    wrong = [False] * 8 + [True]
    assert {name: found.tolist() for name, found in doubtful(probabilities).items()} == {"dark": wrong, "light": wrong}
    for index, rows in enumerate(probabilities.values()):
        confidence = own_confidence(rows, index)
        assert confidence[:8].min() > 0.5 > confidence[8]


def test_a_stopped_cross_validation_goes_on_with_its_finished_folds(colours: ImageData, tmp_path: Path) -> None:
    """A missing and a damaged fold are made again, to the same bytes; a kept one is taken as it is, but not for another seed."""
    whole = judged(colours, tmp_path / "kept")
    before = tree(tmp_path / "kept")
    first, second, third = sorted((tmp_path / "kept").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    again = judged(colours, tmp_path / "kept")
    assert tree(tmp_path / "kept") == before
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    write_tensors(third, {"probabilities": torch.full_like(read_tensors(third)["probabilities"], 0.125)})
    taken = torch.cat(list(judged(colours, tmp_path / "kept").values()))
    assert int((taken == 0.125).all(dim=1).sum()) == 6
    assert not (torch.cat(list(judged(colours, tmp_path / "kept", seed=1).values())) == 0.125).any()


def test_what_cannot_be_cross_validated_is_refused(colours: ImageData, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two folds"):
        cross_validated_probabilities(colours, tmp_path, folds=1)
    with pytest.raises(SettingsError, match="hard labels"):
        cross_validated_probabilities(colours, tmp_path, protocol="stored")
