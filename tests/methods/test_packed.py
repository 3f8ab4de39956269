"""Packed random real images."""

from pathlib import Path

import pytest
import torch

from d3hr import load_images, random_real
from d3hr.errors import DataError, SettingsError
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from d3hr.sets.image_set import pictures_of
from tests.conftest import MakeFolder, tree


def test_a_packed_draw_holds_the_single_one_and_more(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Two stored images of 16 px are eight different real images of 8 px, the first two of them those that are drawn without packing."""
    images = load_images(image_folder({"ant": 9, "bee": 9}, size=16))
    make = METHODS["random_real"].make
    made = make(MethodInputs(images, 16), tmp_path / "packed", ipc=2, seed=3, shared=tmp_path / "shared", pack=2)
    assert (made.pack, made.image_size, made.ipc) == (2, 16, 2)
    single = random_real(images, tmp_path / "single", ipc=2, image_size=8, seed=3)
    for name in images.class_names:
        small = {image.numpy().tobytes() for image in images.at_size(8).of_class(name)}
        drawn = pictures_of(made).of_class(name)
        assert torch.equal(drawn[:2], single.of_class(name))
        assert len({image.numpy().tobytes() for image in drawn} & small) == 8
    assert made.manifest.storage["images"] == sum(file.stat().st_size for file in (made.path / "train").rglob("*.png"))


def test_without_packing_it_is_the_usual_draw(image_folder: MakeFolder, tmp_path: Path) -> None:
    images = load_images(image_folder({"ant": 4, "bee": 4}))
    METHODS["random_real"].make(MethodInputs(images, 8), tmp_path / "one", ipc=2, shared=tmp_path / "shared", pack=1)
    random_real(images, tmp_path / "other", ipc=2, image_size=8)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_what_cannot_be_packed(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Too few images for four in each, and tiles of 4 pixels: one message each, and nothing is written."""
    images = load_images(image_folder({"ant": 12, "bee": 7}, size=16))
    make = METHODS["random_real"].make
    with pytest.raises(DataError, match=r"fewer than 8 real images.*\n.*bee \(7\)"):
        make(MethodInputs(images, 16), tmp_path / "set", ipc=2, shared=tmp_path / "shared", pack=2)
    with pytest.raises(SettingsError, match="4 pixels"):
        make(MethodInputs(images, 8), tmp_path / "set", ipc=1, shared=tmp_path / "shared", pack=2)
    with pytest.raises(SettingsError, match="pack"):
        make(MethodInputs(images, 8), tmp_path / "set", ipc=1, shared=tmp_path / "shared", pack=0)
    assert not list(tmp_path.glob("set*"))
