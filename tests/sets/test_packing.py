"""Packed images: the tiles of a stored image, and sets of them on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d3hr import DistilledSet, ImageData, load_images
from d3hr.data.codec import to_unit_range
from d3hr.errors import DistilledSetError, SettingsError
from d3hr.fileio.staging import StagedFolder
from d3hr.sets.image_set import pictures_of
from d3hr.sets.manifest import Manifest
from d3hr.sets.packing import MIN_TILE, pack, pack_chosen, packed_in_words, tile_side, unpack
from d3hr.sets.writer import write_set
from tests.conftest import MakeFolder

NAMES = ("ant", "bee")


def noise(count: int, side: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def packed_set(folder: Path, of_class: dict[str, Tensor], factor: int = 2) -> DistilledSet:
    """Write a set of packed pictures uint8 [P, 3, h, h] of each class."""
    stored = {name: pack(pictures, factor) for name, pictures in of_class.items()}
    first = next(iter(stored.values()))
    manifest = Manifest.of(
        method="random_real", class_names=tuple(stored), ipc=len(first), image_size=first.shape[-1], settings={"seed": 0}, pack=factor
    )
    with StagedFolder(folder, manifest.key()) as stage:
        write_set(stage, manifest, lambda names: ((name, to_unit_range(stored[name])) for name in names))
    return DistilledSet.load(folder)


def test_tiles_by_hand() -> None:
    """Eight pictures of one pixel, 0 to 7, become two images, row by row."""
    pictures = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 1, 1)
    assert pack(pictures, 2)[:, 1].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    inside = torch.arange(16.0).view(4, 1, 2, 2)
    assert pack(inside, 2)[0, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_unpacking_undoes_packing(factor: int) -> None:
    pictures = noise(2 * factor**2, 5)
    stored = pack(pictures, factor)
    assert stored.shape == (2, 3, 5 * factor, 5 * factor)
    assert torch.equal(unpack(stored, factor), pictures)


def test_pictures_must_not_be_too_small() -> None:
    """Of 16 pixels come pictures of 8, the least; 15, 12 and 14 do not do, and without packing any side does."""
    assert (tile_side(16, 2), tile_side(24, 3), tile_side(5, 1)) == (MIN_TILE, MIN_TILE, 5)
    for side, factor, shown in ((14, 2, "7 pixels"), (17, 2, r"8\.5 pixels"), (16, 4, "4 pixels")):
        with pytest.raises(SettingsError, match=shown):
            tile_side(side, factor)
    assert (packed_in_words(2), packed_in_words(1)) == ("packed 2x2, 4 images per stored image", "")


def test_chosen_images_are_resized_once(image_folder: MakeFolder) -> None:
    """Bit by bit what the data set gives at the side of a tile, in the order chosen."""
    images = load_images(image_folder({"ant": 6, "bee": 6}, size=20))
    chosen = [5, 0, 3, 1]
    made = pack_chosen(images, "bee", chosen, 2, 16)
    assert made.shape == (1, 3, 16, 16) and made.dtype == torch.uint8
    assert torch.equal(unpack(made, 2), images.at_size(8).pixels("bee", chosen))
    assert torch.equal(pack_chosen(images, "bee", chosen, 1, 20), images.pixels("bee", chosen))
    with pytest.raises(SettingsError, match="6 pixels"):
        pack_chosen(images, "bee", chosen, 2, 12)


def test_the_pictures_of_a_packed_set(tmp_path: Path) -> None:
    """Two stored images a class are eight pictures a class, each as it was packed, under its class's label."""
    pictures = {name: noise(8, 8, seed) for seed, name in enumerate(NAMES)}
    made = packed_set(tmp_path / "set", pictures)
    assert (made.pack, made.ipc, made.image_size, dict(made.counts)) == (2, 2, 16, {"ant": 2, "bee": 2})
    assert repr(made).endswith("16 px, packed 2x2, 4 images per stored image)")
    shown = pictures_of(made)
    assert (shown.pack, shown.ipc, shown.image_size, dict(shown.counts)) == (1, 8, 8, {"ant": 8, "bee": 8})
    images, labels = shown.tensors()
    assert torch.equal(images, torch.cat(list(pictures.values()))) and labels.tolist() == [0] * 8 + [1] * 8
    for count in (None, 1, 4, 5):
        assert torch.equal(shown.of_class("bee", count), pictures["bee"][:count])
    assert (shown.source, shown.method, shown.seed, shown.manifest) == (made.source, made.method, made.seed, made.manifest)
    assert shown.identity != made.identity


def test_a_set_that_is_not_packed_is_its_own_pictures(digits: ImageData) -> None:
    assert pictures_of(digits) is digits


def test_packing_decides_the_set_and_nothing_else_does(tmp_path: Path) -> None:
    """The key of a packed set has ``pack``; the manifest and the key of any other are what they were before there was packing."""
    given: dict[str, Any] = {"method": "random_real", "class_names": NAMES, "ipc": 1, "image_size": 16, "settings": {}}
    plain, packed = Manifest.of(**given), Manifest.of(**given, pack=2)
    assert {**plain.key(), "pack": 2} == packed.key()
    assert "pack" not in plain.model_dump(mode="json")
    assert Manifest.model_validate_json(packed.model_dump_json()).pack == 2
    assert Manifest.model_validate(plain.model_dump(mode="json")).pack == 1


@pytest.mark.parametrize("factor", [0, 3, 4])
def test_a_manifest_whose_tiles_are_none_is_refused(tmp_path: Path, factor: int) -> None:
    """Sixteen pixels are no three tiles, and four tiles of 4 pixels are too small."""
    made = packed_set(tmp_path / "set", {name: noise(4, 8) for name in NAMES})
    (made.path / "SHA256SUMS").unlink()
    file = made.path / "manifest.json"
    content = {**json.loads(file.read_text()), "pack": factor}
    del content["sha256"]
    file.write_text(json.dumps(content))
    with pytest.raises(DistilledSetError, match=r"pack|pixels"):
        DistilledSet.load(made.path)
