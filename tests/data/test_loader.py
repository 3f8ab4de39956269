"""Batches decoded ahead, in worker processes."""

from collections.abc import Iterator

import pytest
import torch

from d3hr import ImageData, load_images
from d3hr.data.loader import Batches
from d3hr.errors import DataError, SettingsError
from tests.conftest import MakeFolder


@pytest.mark.parametrize("decoders", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_batches_are_those_of_the_data(digits: ImageData, decoders: int) -> None:
    """In order, with a smaller last one, also after a request that was left unfinished."""
    batches = Batches(digits, decoders)
    next(batches.of("0", range(30), 10))
    for places in (range(25), [7, 3, 99]):
        parts = list(batches.of("4", places, 10))
        assert [len(part) for part in parts] == [10] * (len(places) // 10) + [len(places) % 10]
        assert torch.equal(torch.cat(parts), digits.pick("4", places))


@pytest.mark.parametrize("decoders", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_file_that_vanished_is_named(image_folder: MakeFolder, decoders: int) -> None:
    """The error is the one of this process, not the text of a worker's traceback."""
    folder = image_folder({"ant": 3, "bee": 3})
    images = load_images(folder)
    (folder / "ant" / "1.png").unlink()
    batches: Iterator[object] = Batches(images, decoders).of("ant", range(3), 3)
    with pytest.raises(DataError, match="can no longer be read") as caught:
        next(batches)
    assert "1.png" in caught.value.what and "Traceback" not in str(caught.value)


def test_fewer_than_no_decoders(digits: ImageData) -> None:
    with pytest.raises(SettingsError, match="--decoders"):
        Batches(digits, -1)
