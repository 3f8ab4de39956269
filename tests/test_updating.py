"""A set that grows with its data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import d3hr
from d3hr.data.opening import load_images
from d3hr.distillation.grouping import search_mixtures
from d3hr.errors import DistilledSetError, PriorError
from d3hr.sets import writer
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.growth import Change, changes_since, in_order_of
from d3hr.sets.writer import CONTENTS
from tests.conftest import MakeFolder, untrained_prior

CLASSES = ("ant", "bee", "cat", "asp")
QUICK: dict[str, Any] = {"steps": 6, "level": 3, "num_candidates": 20, "inversion_guidance": 1.0, "denoising_guidance": 1.0}
PRIOR = untrained_prior(CLASSES)


def add(folder: Path, class_name: str, names: list[str]) -> None:
    """Add images of noise, whose names say where they come in the order."""
    (folder / class_name).mkdir(exist_ok=True)
    for name in names:
        rng = np.random.default_rng([ord(letter) for letter in class_name + name])
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / class_name / f"{name}.png")


@pytest.fixture
def photos(image_folder: MakeFolder) -> Path:
    return Path(image_folder({"ant": 6, "bee": 5, "cat": 4}))


def distil(photos: Path, out: Path, prior: d3hr.Prior | None = PRIOR, **options: Any) -> DistilledSet:
    return d3hr.distill(load_images(photos), prior, out, ipc=2, **{**(QUICK if prior else {}), **options})


def images_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted((folder / "train").rglob("*.png"))}


def test_a_new_class_leaves_all_others_as_a_full_run_makes_them(photos: Path, tmp_path: Path) -> None:
    """Pictures and statistics are those of a full run, to the last byte; only the labels differ, since old classes keep theirs."""
    before = distil(photos, tmp_path / "before")
    add(photos, "asp", ["a", "b", "c"])
    updated = d3hr.update(before, load_images(photos), PRIOR, tmp_path / "updated")
    full = distil(photos, tmp_path / "full")
    assert images_of(updated.path) == images_of(full.path)
    for name in CLASSES:
        assert torch.equal(updated.statistics[name].mean, full.statistics[name].mean)
    assert updated.class_names == ("ant", "bee", "cat", "asp")
    assert full.class_names == ("ant", "asp", "bee", "cat")


def test_nothing_new_gives_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    before = distil(photos, tmp_path / "before")
    updated = d3hr.update(before, load_images(photos), PRIOR, tmp_path / "updated")
    for name in ("manifest.json", "statistics.safetensors", CONTENTS):
        assert (updated.path / name).read_bytes() == (before.path / name).read_bytes()
    assert images_of(updated.path) == images_of(before.path)


def test_added_images_are_merged_into_the_statistics(photos: Path, tmp_path: Path) -> None:
    """Mean and std of all images, of which the old ones were not inverted again: they may be gone, and it does not show."""
    before = distil(photos, tmp_path / "before")
    add(photos, "bee", ["zz1", "zz2"])
    updated = d3hr.update(before, load_images(photos), PRIOR, tmp_path / "updated")
    full = distil(photos, tmp_path / "full")
    assert updated.statistics["bee"].count == 7
    torch.testing.assert_close(updated.statistics["bee"].mean, full.statistics["bee"].mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(updated.statistics["bee"].std, full.statistics["bee"].std, rtol=1e-5, atol=1e-6)
    assert not torch.equal(updated.of_class("bee"), before.of_class("bee"))
    assert torch.equal(updated.of_class("ant"), before.of_class("ant"))
    assert [entry.real_images for entry in updated.manifest.classes] == [6, 7, 4]


def test_only_added_images_are_inverted(photos: Path, tmp_path: Path) -> None:
    before = distil(photos, tmp_path / "before")
    add(photos, "bee", ["zz1", "zz2"])
    sizes: list[int] = []
    with PRIOR.network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0]))):
        d3hr.update(before, load_images(photos), PRIOR, tmp_path / "updated", progress=d3hr.progress.SILENT)
    assert sizes == [2] * 3 + [2] * 3  # three levels up for two images, three down for the two of the set


def test_groups_are_searched_for_classes_that_have_changed_alone(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = distil(photos, tmp_path / "before")
    add(photos, "bee", ["zz1"])
    add(photos, "asp", ["a", "b"])
    searched: list[list[str]] = []

    def watched(mixtures: Any, settings: Any, names: Sequence[str], **options: Any) -> dict[str, int]:
        searched.append(list(names))
        return search_mixtures(mixtures, settings, names, **options)

    monkeypatch.setattr(writer, "search_mixtures", watched)
    updated = d3hr.update(before, load_images(photos), PRIOR, tmp_path / "updated")
    full = distil(photos, tmp_path / "full")
    assert searched == [["bee", "asp"], ["ant", "asp", "bee", "cat"]]
    assert torch.equal(updated.of_class("asp"), full.of_class("asp"))


def test_a_class_that_is_damaged_after_its_search_is_drawn_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that was taken over has no candidate of this run; where its picture is lost before the end, one is searched for."""
    before = distil(photos, tmp_path / "before")
    add(photos, "asp", ["a", "b"])
    images = load_images(photos)
    expected = d3hr.update(before, images, PRIOR, tmp_path / "expected")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "contact_sheet", stop)
        with pytest.raises(KeyboardInterrupt):
            d3hr.update(before, images, PRIOR, tmp_path / "updated")
    monkeypatch.setattr("d3hr.pipeline.reuse_classes", lambda *_: None)
    next((tmp_path / "updated.partial" / "train").glob("*bee*/*.png")).write_bytes(b"half")
    updated = d3hr.update(before, images, PRIOR, tmp_path / "updated")
    assert images_of(updated.path) == images_of(expected.path)


def test_a_class_with_several_modes_is_measured_anew(photos: Path, tmp_path: Path) -> None:
    before = distil(photos, tmp_path / "before", modes=2)
    add(photos, "bee", ["zz1", "zz2"])
    updated = d3hr.update(before, load_images(photos), PRIOR, tmp_path / "updated")
    full = distil(photos, tmp_path / "full", modes=2)
    assert images_of(updated.path) == images_of(full.path)
    assert (updated.path / "statistics.safetensors").read_bytes() == (full.path / "statistics.safetensors").read_bytes()


def test_chosen_images_stay_and_others_are_chosen(photos: Path, tmp_path: Path) -> None:
    before = distil(photos, tmp_path / "before", None, candidates="real")
    add(photos, "bee", ["aa1", "zz2"])
    updated = d3hr.update(before, load_images(photos), None, tmp_path / "updated")
    full = distil(photos, tmp_path / "full", None, candidates="real")
    assert images_of(updated.path) == images_of(full.path)
    assert updated.manifest.classes == full.manifest.classes


def test_an_expanded_set_can_be_updated(photos: Path, tmp_path: Path) -> None:
    """Its statistics come from the images that those of the other set came from."""
    larger = distil(photos, tmp_path / "before").expand(PRIOR, 3, tmp_path / "larger")
    add(photos, "asp", ["a", "b"])
    updated = d3hr.update(larger, load_images(photos), PRIOR, tmp_path / "updated")
    assert torch.equal(updated.of_class("bee"), larger.of_class("bee"))
    assert updated.counts == {"ant": 3, "bee": 3, "cat": 3, "asp": 3}


def test_statistics_alone_are_updated(photos: Path, tmp_path: Path) -> None:
    before = distil(photos, tmp_path / "before", store="statistics")
    add(photos, "asp", ["a", "b"])
    updated = d3hr.update(before, load_images(photos), PRIOR, tmp_path / "updated")
    assert (updated.manifest.ipc, updated.class_names) == (0, ("ant", "bee", "cat", "asp"))


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda photos: None, {"ant": "same", "bee": "same", "cat": "same"}),
        (lambda photos: add(photos, "bee", ["a0", "zz"]), {"ant": "same", "bee": "grown", "cat": "same"}),
        (lambda photos: next((photos / "cat").iterdir()).unlink(), {"ant": "same", "bee": "same", "cat": "changed"}),
        (lambda photos: add(photos, "asp", ["a", "b"]), {"ant": "same", "bee": "same", "cat": "same", "asp": "new"}),
    ],
)
def test_changes_are_seen_class_by_class(photos: Path, tmp_path: Path, change: Callable[[Path], None], kinds: dict[str, str]) -> None:
    made = distil(photos, tmp_path / "set", store="statistics")
    change(photos)
    images = in_order_of(made.class_names, load_images(photos))
    assert {name: change.kind for name, change in changes_since(made, images).items()} == kinds
    if kinds["bee"] == "grown":
        assert changes_since(made, images)["bee"] == Change("grown", (5, 6)) or changes_since(made, images)["bee"].added == (0, 6)


def test_a_run_that_was_stopped_ends_with_the_same_bytes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = distil(photos, tmp_path / "before")
    add(photos, "bee", ["zz1", "zz2"])
    images = load_images(photos)
    expected = d3hr.update(before, images, PRIOR, tmp_path / "expected")
    with monkeypatch.context() as patch:
        patch.setattr("d3hr.pipeline.write_drawn_set", stop)
        with pytest.raises(KeyboardInterrupt):
            d3hr.update(before, images, PRIOR, tmp_path / "updated")
    updated = d3hr.update(before, images, PRIOR, tmp_path / "updated")
    assert images_of(updated.path) == images_of(expected.path)
    assert (updated.path / "statistics.safetensors").read_bytes() == (expected.path / "statistics.safetensors").read_bytes()


def stop(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_updated_is_refused(photos: Path, tmp_path: Path) -> None:
    images = load_images(photos)
    made = distil(photos, tmp_path / "set")
    other = d3hr.random_real(images, tmp_path / "random", ipc=1, image_size=8)
    with pytest.raises(DistilledSetError, match="random_real"):
        d3hr.update(other, images, None, tmp_path / "out")
    with pytest.raises(PriorError, match="not the prior"):
        d3hr.update(made, images, untrained_prior((*CLASSES, "dog")), tmp_path / "out")
    copytree(photos, tmp_path / "fewer")
    for file in (tmp_path / "fewer" / "bee").iterdir():
        file.unlink()
    (tmp_path / "fewer" / "bee").rmdir()
    with pytest.raises(DistilledSetError, match="bee"):
        d3hr.update(made, load_images(tmp_path / "fewer"), PRIOR, tmp_path / "out")
    copytree(made.path, tmp_path / "bare")
    for name in (CONTENTS, "SHA256SUMS"):
        (tmp_path / "bare" / name).unlink()
    with pytest.raises(DistilledSetError, match="does not say which images"):
        d3hr.update(DistilledSet.load(tmp_path / "bare"), images, PRIOR, tmp_path / "out")
    assert not (tmp_path / "out").exists()
