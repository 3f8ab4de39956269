import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d3hr import DistilledSet
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import DistilledSetError
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.repository import PriorRecord
from d3hr.sets.manifest import Manifest
from d3hr.sets.statistics import write_mixtures
from d3hr.sets.writer import write_set

NAMES = ("ant", "a/b")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A set of two classes, two images of 8 px each, and statistics of 4 dimensions."""
    asked = [Conditioning(name, index, name, "exact name") for index, name in enumerate(NAMES)]
    prior = PriorRecord(source="prior", fingerprint="ab")
    settings = DistillSettings(ipc=2).model_dump(mode="json")
    manifest = Manifest.of(method="d3hr", class_names=NAMES, ipc=2, image_size=8, settings=settings, prior=prior, conditioning=asked)
    gaussian = ClassGaussian(torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64), 3)
    with StagedFolder(tmp_path / "set", manifest.key()) as stage:
        write_set(
            stage,
            manifest,
            lambda names: ((name, torch.zeros(2, 3, 8, 8)) for name in names),
            mixtures=dict.fromkeys(NAMES, ClassMixture((gaussian,))),
        )
    unsealed(tmp_path / "set")
    return tmp_path / "set"


def unsealed(folder: Path) -> None:
    """Take the checksums off a set, as somebody does who means to deceive."""
    (folder / "SHA256SUMS").unlink()
    change(folder, lambda content: content.pop("sha256"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_set_agrees_with_itself(whole: Path) -> None:
    distilled = DistilledSet.load(whole)
    assert distilled.images.shape == (4, 3, 8, 8)
    assert distilled.labels.tolist() == [0, 0, 1, 1]
    assert [gaussian.count for gaussian in distilled.statistics.values()] == [3, 3]


def everywhere(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: [entry.update(fields) for entry in content["classes"]]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda content: content["classes"][1].update(folder="../../outside"), "where its name makes 'a%2Fb'"),
        (lambda content: content["classes"][0].update(folder="/etc"), "where its name makes 'ant'"),
        (lambda content: content["classes"][0].update(name="a/b", folder="a%2Fb"), "two classes have one name"),
        (lambda content: content["classes"].reverse(), "labels are not 0, 1, 2"),
        (lambda content: content["classes"][0].update(images=10**12), "10{12} images, where ipc is 2"),
        (lambda content: (content.update(ipc=10**12), everywhere(images=10**12)(content)), "of 10{12} images"),
        (lambda content: content.update(ipc=-1), "greater than or equal to 0"),
        (lambda content: content.update(image_size=10**9), "image_size: .* less than or equal"),
        (lambda content: content.update(format="d3hr-set-2"), "d3hr-set-1"),
        (lambda content: content.update(classes=[]), "classes: .* at least 1"),
        (lambda content: content["prior"].update(source=7), "prior.*valid string"),
        (lambda content: content["classes"][0].update(conditioning_id=None), "some classes, but not all, have a conditioning_id"),
        (lambda content: content["settings"].update(seed="x"), "settings.*valid integer"),
        (lambda content: content["settings"].update(steps=1), "settings.*greater than or equal to 2"),
        (lambda content: content["settings"].update(preset="paper"), "settings.*not permitted"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(whole: Path, edit: Callable[[dict[str, Any]], object], words: str) -> None:
    """Before any other file is opened or any memory taken: absurd counts end at once."""
    change(whole, edit)
    with pytest.raises(DistilledSetError, match=words):
        DistilledSet.load(whole)


@pytest.mark.parametrize("which", ["manifest.json", "train", "train/ant", "train/ant/00001.png", "statistics.safetensors"])
def test_links_out_of_a_set_are_refused(whole: Path, which: str) -> None:
    outside = whole.with_name("outside")
    shutil.move(whole / which, outside)
    (whole / which).symlink_to(os.path.relpath(outside, (whole / which).parent))
    with pytest.raises(DistilledSetError, match="leads out of the set"):
        _ = DistilledSet.load(whole).statistics


@pytest.mark.parametrize("part", [("prior", "fingerprint"), ("settings", "statistics_level")])
def test_statistics_of_an_unknown_making_are_refused(whole: Path, part: tuple[str, str]) -> None:
    change(whole, lambda content: content[part[0]].pop(part[1]))
    with pytest.raises(DistilledSetError, match="does not fit the manifest"):
        _ = DistilledSet.load(whole).statistics


def test_images_of_another_size_are_refused(whole: Path) -> None:
    Image.fromarray(np.zeros((9, 8, 3), dtype=np.uint8)).save(whole / "train" / "ant" / "00000.png")
    with pytest.raises(DistilledSetError, match="8 x 9 pixels, where the manifest says 8 x 8"):
        _ = DistilledSet.load(whole).images


@pytest.mark.parametrize(
    ("classes", "mean", "std", "words"),
    [
        (1, torch.zeros(4), torch.ones(4), r"where 2 class\(es\)"),
        (2, torch.zeros(2000), torch.ones(2000), "dimensions, of at most 1,024"),
        (2, torch.zeros(4), -torch.ones(4), "negative spread"),
        (2, torch.full((4,), torch.nan), torch.ones(4), "not finite"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(whole: Path, classes: int, mean: torch.Tensor, std: torch.Tensor, words: str) -> None:
    """At most 16 dimensions a pixel: 1,024 at 8 x 8."""
    write_mixtures(whole / "statistics.safetensors", [ClassMixture((ClassGaussian(mean.double(), std.double(), 3),))] * classes)
    with pytest.raises(DistilledSetError, match=words):
        _ = DistilledSet.load(whole).statistics


@pytest.mark.parametrize(
    ("modes", "counts", "words"),
    [
        (2, [3], r"where 2 class\(es\) of 2 mode\(s\)"),
        (1, [3, 2], r"where 2 class\(es\) of 1 mode\(s\)"),
        (1, [0], "no latents"),
        (2, [0, 0], "no latents"),
        (1001, [3], "settings"),
    ],
)
def test_modes_that_do_not_fit_are_refused(whole: Path, modes: int, counts: list[int], words: str) -> None:
    """The file has as many modes as the manifest says, and a class something to be drawn from."""
    change(whole, lambda content: content["settings"].update(modes=modes))
    ones = torch.ones(4, dtype=torch.float64)
    mixture = ClassMixture(tuple(ClassGaussian(ones, ones, count) for count in counts))
    write_mixtures(whole / "statistics.safetensors", [mixture] * 2)
    with pytest.raises(DistilledSetError, match=words):
        _ = DistilledSet.load(whole).statistics


@pytest.mark.parametrize(
    ("rank", "kept", "words"),
    [(2, 0, "rank 2 have .*loadings"), (0, 2, "loadings.*rank 0 have"), (3, 2, "rank 3 have .*loadings"), (-1, 0, "settings")],
)
def test_ranks_that_do_not_fit_are_refused(whole: Path, rank: int, kept: int, words: str) -> None:
    """The file has as many loadings as the manifest says."""
    change(whole, lambda content: content["settings"].update(rank=rank))
    ones = torch.ones(4, dtype=torch.float64)
    gaussian = ClassGaussian(ones, ones, 3, kept, torch.ones(kept, 4, dtype=torch.float64) if kept else None)
    write_mixtures(whole / "statistics.safetensors", [ClassMixture((gaussian,))] * 2)
    with pytest.raises(DistilledSetError, match=words):
        _ = DistilledSet.load(whole).statistics


def test_a_header_of_terabytes_is_refused_by_itself(whole: Path) -> None:
    """The file is as long as its header says, without a byte of it on the disk; mapping it would fail, or fill memory."""
    rows, columns = 2, 2**36
    size = 4 * rows * columns
    header = {
        "mean": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, size]},
        "std": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [size, 2 * size]},
        "count": {"dtype": "I64", "shape": [2], "data_offsets": [2 * size, 2 * size + 16]},
    }
    text = json.dumps(header).encode()
    file = whole / "statistics.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + 2 * size + 16)
    with pytest.raises(DistilledSetError, match=r"damaged(.|\n)*bytes, of at most"):
        _ = DistilledSet.load(whole).statistics
