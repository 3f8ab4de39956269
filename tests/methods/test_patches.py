from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from d3hr import load_images
from d3hr.errors import ClassMismatch, DataError, SettingsError
from d3hr.evaluation.students import Student
from d3hr.evaluation.teachers import Teacher
from d3hr.methods.job import MethodInputs
from d3hr.methods.patches import best_first, crop_boxes, cropped
from d3hr.methods.registry import METHODS


class Brightness(Student):
    """A student of one feature, the mean pixel b in [-1, 1], and logits w b."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.classifier = nn.Linear(1, len(weights), bias=False)
        self.classifier.weight.data = torch.tensor(weights)[:, None]

    def embed(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]


def bright_teacher(*names: str) -> Teacher:
    """A teacher that takes bright images for its last class, dark ones for its first."""
    network = Brightness([float(place) for place in range(len(names))]).eval()
    return Teacher(network, "brightness", names, 8, {"accuracy": 1.0})


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Two classes, each of six images of one shade each: 0, 50, ..., 250."""
    for name in ("night", "day"):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for shade in range(0, 251, 50):
            Image.new("RGB", (8, 8), (shade, shade, shade)).save(tmp_path / "shades" / name / f"{shade:03d}.png")
    return tmp_path / "shades"


def test_the_teacher_decides_which_patches(shades: Path, tmp_path: Path) -> None:
    """The loss for "day" falls with brightness, that for "night" rises: one image of "day" holds the shades 250, 200, 150, 100, one of
    "night" 0, 50, 100, 150, from the upper left on."""
    inputs = MethodInputs(load_images(shades), 8, teacher=bright_teacher("night", "day"))
    made = METHODS["patches"].make(inputs, tmp_path / "set", ipc=1, shared=tmp_path / "shared")
    assert made.of_class("day")[0, 0, ::4, ::4].tolist() == [[250, 200], [150, 100]]
    assert made.of_class("night")[0, 0, ::4, ::4].tolist() == [[0, 50], [100, 150]]
    assert made.of_class("day")[0, :, :4, :4].unique().tolist() == [250]


def test_bright_parts_of_images_are_found(tmp_path: Path) -> None:
    """Images black but for their upper left quarter. A crop of half the side has odds of 0.09 (a share of the area under (4.5 / 8)^2) and
    lies in a given corner with odds of 1 / 25, so of 2,000 crops about 7 are all white, and one of them fills the image at factor 1."""
    rng = np.random.default_rng(0)
    for name in ("night", "day"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 3, (8, 8, 3), dtype=np.uint8)
            pixels[:4, :4] = 255
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    inputs = MethodInputs(load_images(tmp_path / "images"), 8, teacher=bright_teacher("night", "day"))
    make = METHODS["patches"].make
    made = make(inputs, tmp_path / "set", ipc=2, shared=tmp_path / "shared", factor=1, crops=2000)
    assert made.of_class("day").float().min() == 255
    assert made.of_class("night").float().max() <= 2


def test_a_larger_set_contains_the_smaller(shades: Path, tmp_path: Path) -> None:
    """And the ranking is made once for both: what lies in ``shared`` is not written again."""
    inputs = MethodInputs(load_images(shades), 8, teacher=bright_teacher("night", "day"))
    make = METHODS["patches"].make
    one = make(inputs, tmp_path / "one", ipc=1, shared=tmp_path / "shared")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.is_file()}
    assert times
    three = make(inputs, tmp_path / "three", ipc=3, shared=tmp_path / "shared")
    assert torch.equal(three.images[::3], one.images)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.is_file()} == times


def test_each_image_gives_its_best_crop_before_any_gives_two() -> None:
    """Losses of three images, two crops each: the best are 0.1 (crop 1), 0.5 (2), 0.3 (5); then 0.2 (0), 0.9 (3), 0.4 (4)."""
    losses = np.array([[0.2, 0.1], [0.5, 0.9], [0.4, 0.3]], dtype=np.float32)
    assert best_first(losses).tolist() == [1, 5, 2, 0, 4, 3]


def test_crops_lie_in_the_image_and_fill_the_shares() -> None:
    """Sides from sqrt(0.25) 20 = 10 to 20, every place inside; shares of the area even in [0.25, 1], of mean 0.625."""
    boxes = crop_boxes(200, 50, 20, 0.25, torch.Generator().manual_seed(0))
    top, left, side = boxes.unbind(-1)
    assert (int(side.min()), int(side.max())) == (10, 20)
    assert min(top.min(), left.min()) == 0
    assert max((top + side).max(), (left + side).max()) == 20
    assert float((side.double() ** 2 / 400).mean()) == pytest.approx(0.625, abs=0.02)
    assert (int(top[side == 10].min()), int(top[side == 10].max())) == (0, 10)


def test_crop_by_hand() -> None:
    """The crop at (1, 2) of side 2 of the image 0, 1, ..., 15 is 6, 7, 10, 11."""
    image = torch.arange(16.0).view(1, 4, 4).expand(3, 4, 4)
    assert cropped(image, torch.tensor([1, 2, 2]), 2)[0].tolist() == [[6, 7], [10, 11]]
    assert cropped(image, torch.tensor([1, 2, 2]), 1)[2].tolist() == [[8.5]]


def test_what_patches_cannot_be_made_of(shades: Path, tmp_path: Path) -> None:
    images = load_images(shades)
    make = METHODS["patches"].make
    with pytest.raises(ClassMismatch, match="dusk"):
        make(MethodInputs(images, 8, teacher=bright_teacher("night", "dusk")), tmp_path / "set", ipc=1, shared=tmp_path / "shared")
    inputs = MethodInputs(images, 8, teacher=bright_teacher("night", "day"))
    with pytest.raises(SettingsError, match="factor 3"):
        make(inputs, tmp_path / "set", ipc=1, shared=tmp_path / "shared", factor=3)
    with pytest.raises(DataError, match=r"fewer than 8 crops.*\n.*day \(6\)"):
        make(inputs, tmp_path / "set", ipc=2, shared=tmp_path / "shared", crops=1)
    assert not list(tmp_path.glob("set*"))
