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


CALLS: dict[str, Callable[..., object]] = {
    "distill a folder's name": lambda images, prior, out, **_: d3hr.distill(images.source, prior, out),
    "distill with a prior's name": lambda images, out, **_: d3hr.distill(images, "prior", out),  # type: ignore[arg-type]
    "fit a tensor": lambda out, **_: d3hr.fit_prior(torch.zeros(2, 3, 8, 8), out),  # type: ignore[arg-type]
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
    assert "must be" in caught.value.what and caught.value.found and "d3hr." in caught.value.hint
    assert not parts["out"].exists()


def test_an_unknown_class_is_answered_with_the_known_ones(parts: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="has no class 'wasp'") as caught:
        parts["chosen"].of_class("wasp")
    assert "ant, bee" in caught.value.found


def test_all_errors_can_be_caught_as_one() -> None:
    assert issubclass(SettingsError, D3hrError) and issubclass(DataError, D3hrError)
