"""What a person meets who uses d3hr from Python: versions, wrong kinds of arguments, unknown names."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import d3hr
from d3hr.errors import D3hrError, DataError, SettingsError
from tests.conftest import MakeFolder, untrained_prior


def test_the_version_is_that_of_the_package() -> None:
    assert d3hr.__version__ == version("d3hr")


@pytest.fixture
def parts(image_folder: MakeFolder, tmp_path: Path) -> dict[str, Any]:
    images = d3hr.load_images(image_folder({"ant": 3, "bee": 3}))
    chosen = d3hr.random_real(images, tmp_path / "chosen", ipc=1, image_size=8)
    return {"images": images, "prior": untrained_prior(("ant", "bee")), "chosen": chosen, "out": tmp_path / "out"}


def test_what_is_shown_fits_on_a_line(parts: dict[str, Any]) -> None:
    images, chosen, prior = parts["images"], parts["chosen"], parts["prior"]
    assert repr(images) == f"ImageData({images.source!r}, 6 images of 2 classes, 8 px)"
    assert repr(chosen) == f"DistilledSet({chosen.source!r}, method random_real, 1 images of each of 2 classes, 8 px)"
    assert repr(prior) == "Prior(None, 2 classes, 8 px, fp32)"


def test_images_are_indexed_like_a_list(parts: dict[str, Any]) -> None:
    images = parts["images"]
    everything, labels = images.gather(range(6))
    image, label = images[-1]
    assert torch.equal(image, everything[5]) and label == 1
    some, of_some = images[1:6:2]
    assert torch.equal(some, everything[[1, 3, 5]]) and torch.equal(of_some, labels[[1, 3, 5]])
    for outside in (6, -7):
        with pytest.raises(IndexError):
            images[outside]


CALLS: dict[str, Callable[..., object]] = {
    "distill a folder's name": lambda images, prior, out, **_: d3hr.distill(images.source, prior, out),
    "distill with a prior's name": lambda images, out, **_: d3hr.distill(images, "prior", out),  # type: ignore[arg-type]
    "fit a tensor": lambda out, **_: d3hr.fit_prior(torch.zeros(2, 3, 8, 8), out),  # type: ignore[arg-type]
    "load a tensor": lambda **_: d3hr.load_images(torch.zeros(2)),
    "evaluate a path": lambda images, chosen, **_: d3hr.evaluate(chosen.path, images),
    "evaluate on a path": lambda images, chosen, **_: d3hr.evaluate(chosen, images.source),
    "diagnose a path": lambda images, chosen, **_: d3hr.diagnose(chosen.path, images),
    "diagnose with a prior's name": lambda images, chosen, **_: d3hr.diagnose(chosen, images, "prior"),  # type: ignore[arg-type]
    "expand with a prior's name": lambda chosen, out, **_: d3hr.expand(chosen, "prior", ipc=2, out=out),  # type: ignore[arg-type]
    "choose from a list": lambda out, **_: d3hr.random_real([1, 2], out, ipc=1, image_size=8),  # type: ignore[arg-type]
    "draw from a name": lambda out, **_: d3hr.prior_only("prior", ("ant",), out, ipc=1),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_an_argument_of_the_wrong_kind_is_named(name: str, parts: dict[str, Any]) -> None:
    """With what it is and how to come by a right one, before anything is done."""
    with pytest.raises(SettingsError) as caught:
        CALLS[name](**parts)
    assert "must be" in caught.value.what and caught.value.found and caught.value.hint
    assert not parts["out"].exists()


def test_an_unknown_class_is_answered_with_the_known_ones(parts: dict[str, Any]) -> None:
    images, chosen = parts["images"], parts["chosen"]
    for ask in (chosen.of_class, images.of_class, lambda name: next(images.batches(name)), lambda name: images.pick(name, [0])):
        with pytest.raises(DataError, match="has no class 'wasp'") as caught:
            ask("wasp")
        assert "ant, bee" in caught.value.found


def test_all_errors_can_be_caught_as_one() -> None:
    assert issubclass(SettingsError, D3hrError) and issubclass(DataError, D3hrError)
