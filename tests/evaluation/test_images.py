"""What students see is decoded once for a whole comparison, and released."""

import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import load_images, random_real
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.data.dataset import ImageData
from d3hr.evaluation import images as seen
from d3hr.evaluation.images import LabelledImages, StudentImages, real_images
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import Score, score, seeded_student
from tests.conftest import MakeFolder

HARD = Protocol(name="hard", steps=1, checks=1, batch_size=8, learning_rate=0.05)
CROPPED = HARD.model_copy(update={"name": "cropped", "test_crop": 0.5})
SOFT = HARD.model_copy(update={"name": "soft", "labels": "online"})
COUNTS = {"ant": 6, "bee": 5}


@pytest.fixture
def images(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder(COUNTS, size=16))


@pytest.fixture
def test(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder({"bee": 3, "ant": 4}, size=16, name="test"))


@pytest.mark.slow
def test_a_comparison_decodes_test_images_once(images: ImageData, test: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 trainings, half of them on a centre crop of larger images: seven test images are decoded at either side; the teacher of half of
    them is measured once; no more than one set's pixels are there at a time, and none at the end.
    """
    sets = [random_real(images, tmp_path / f"set{seed}", ipc=2, image_size=16, seed=seed) for seed in range(3)]
    network = seeded_student("convnet1", 2, 16, 0).eval()
    teacher = Teacher(network, "convnet1", images.class_names, 16, {})
    decodings, scores, pixels, alive = list[int](), list[int](), list[weakref.ref[Any]](), list[int]()
    decode, read = ImageData._decode, seen.training_images

    def count_decodings(self: ImageData, indices: Any) -> torch.Tensor:
        decodings.extend([self.image_size] * len(indices))
        return decode(self, indices)

    def count_scores(predict: Any, tested: LabelledImages) -> Score:
        scores.append(len(tested.labels))
        return score(predict, tested)

    def watch(*args: Any) -> LabelledImages:
        made = read(*args)
        pixels.append(weakref.ref(made.images))
        gc.collect()
        alive.append(sum(each() is not None for each in pixels))
        return made

    monkeypatch.setattr(ImageData, "_decode", count_decodings)
    monkeypatch.setattr("d3hr.evaluation.evaluate.score", count_scores)
    monkeypatch.setattr("d3hr.evaluation.evaluate._MEASURED", {})
    monkeypatch.setattr(seen, "training_images", watch)
    settings = [Setting("convnet1", SOFT, teacher), Setting("convnet1", CROPPED)]
    rows = compare_entries([Entry(made, [0, 1]) for made in sets], test, settings, folder=tmp_path / "trainings")
    assert [len(row.runs) for row in rows] == [6, 6]
    assert sorted(decodings) == [16] * 7 + [32] * 7
    assert scores == [7]
    assert alive == [1, 1, 1]
    gc.collect()
    assert all(each() is None for each in pixels)


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_labels_follow_the_classes_of_each_set(test: ImageData, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """Pixels, in memory or in a file, are shared by sets of another order of classes; the digest, by which a teacher is measured, tells
    them apart.
    """
    monkeypatch.setattr("d3hr.data.decoded.IN_MEMORY", in_memory)
    shared = StudentImages(test)
    here, there = shared.tested(("ant", "bee"), 16), shared.tested(("bee", "ant"), 16)
    assert here.images.data_ptr() == there.images.data_ptr()
    assert here.labels.tolist() == [1 - label for label in there.labels.tolist()]
    assert len({here.digest, there.digest, shared.tested(("ant", "bee"), 8).digest}) == 3
    assert real_images(test, ("ant", "bee"), 16).digest == here.digest


def test_pixels_stay_in_their_process(test: ImageData) -> None:
    shared = StudentImages(test)
    empty = len(pickle.dumps(shared))
    expected = shared.tested(test.class_names, 64)
    sent = pickle.dumps(shared)
    assert len(sent) == empty
    again = pickle.loads(sent).tested(test.class_names, 64)
    assert again.digest == expected.digest
