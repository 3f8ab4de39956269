import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from d3hr import DistilledSet, ImageData, Prior, denoise, distill, invert, load_images
from d3hr.data.codec import to_uint8
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.grouping import draw_group, search_candidates
from d3hr.distillation.presets import distill_settings
from d3hr.errors import ClassMismatch, DamagedFile, DataError, DistilledSetError, NumericalError, OutputError, PriorError, SettingsError
from tests.conftest import MakeFolder, tree, untrained_prior, write_parquet


def quick(images: ImageData, prior: Prior, out: Path, **changes: Any) -> DistilledSet:
    """A distillation of few steps."""
    settings = {"steps": 6, "statistics_level": 3, "denoising_level": 3, "num_candidates": 50, **changes}
    return distill(images, prior, out, **settings)


@pytest.fixture
def small(image_folder: MakeFolder) -> tuple[ImageData, Prior]:
    images = load_images(image_folder({"ant": 6, "bee": 5, "cat": 4}))
    return images, untrained_prior(("cat", "ant", "dog", "bee"))


def test_groups_are_searched_on_the_priors_own_gpu(small: tuple[ImageData, Prior], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a prior on the sixth GPU the search asks for the sixth: here there are only two."""
    images, prior = small
    statistics = quick(images, prior, tmp_path / "statistics", store="statistics")
    monkeypatch.setattr(Prior, "device", torch.device("cuda:5"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    with pytest.raises(SettingsError, match="no device cuda:5 here"):
        statistics.expand(prior, 2, tmp_path / "set")


def test_every_step_is_the_one_it_says(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """The set equals encode, invert, match, group, denoise, decode done by hand, class by class, with the prior's own class order."""
    images, prior = small
    made = quick(images, prior, tmp_path / "set", ipc=3, preset="released", inversion_guidance=2.0, denoising_guidance=1.5)
    settings = distill_settings("released", ipc=3, num_candidates=50)
    gaussians = {}
    for name, label in (("ant", 1), ("bee", 3), ("cat", 0)):
        pixels = torch.cat(list(images.batches(name)))
        latents = invert(prior, prior.encode(pixels), torch.full((len(pixels),), label), level=3, steps=6, guidance_scale=2.0)
        gaussian = ClassGaussian.empty(64).update(latents.flatten(1))
        gaussians[name] = ClassGaussian(gaussian.mean.float().double(), gaussian.std.float().double(), gaussian.count)
    found = search_candidates(gaussians, settings)
    for name, label in (("ant", 1), ("bee", 3), ("cat", 0)):
        group = draw_group(name, gaussians[name], settings, found[name]).float().view(3, 4, 4, 4)
        pictures = prior.decode(denoise(prior, group, torch.full((3,), label), level=3, steps=6, guidance_scale=1.5))
        assert (made.of_class(name).int() - to_uint8(pictures).int()).abs().max() <= 1


def test_a_set_opens_as_a_plain_image_folder(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """Hugging Face datasets and d3hr's own reader see the same images under the same names."""
    images, prior = small
    made = quick(images, prior, tmp_path / "set", ipc=2)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    names = loaded.features["label"].names
    assert [names[label] for label in loaded["label"]] == [made.class_names[label] for label in made.labels]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "README.md", "SHA256SUMS", "contact-sheet.png", "contents.safetensors", "manifest.json", "run.json", "statistics.safetensors",
        "train",
    ]  # fmt: skip
    again = load_images(tmp_path / "set")
    assert torch.equal(to_uint8(again.gather(range(6))[0]), made.images)
    assert load_images(str(tmp_path / "set")).counts == {"ant": 2, "bee": 2, "cat": 2}


def test_manifest_maps_names_to_labels_and_conditioning(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    images, prior = small
    quick(images, prior, tmp_path / "set", ipc=1)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    rows = [(entry["name"], entry["label"], entry["conditioning_id"], entry["real_images"]) for entry in manifest["classes"]]
    assert rows == [("ant", 0, 1, 6), ("bee", 1, 3, 5), ("cat", 2, 0, 4)]
    assert manifest["data"]["fingerprint"] == images.fingerprint
    assert manifest["settings"]["ipc"] == 1


@pytest.mark.parametrize("preset", ["paper", "released", "fast", "mixture", "gentle"])
@pytest.mark.parametrize("ipc", [1, 2, 3, 4])
def test_any_ipc_and_preset(small: tuple[ImageData, Prior], tmp_path: Path, ipc: int, preset: str) -> None:
    made = quick(*small, tmp_path / "set", ipc=ipc, preset=preset)
    assert made.images.shape == (3 * ipc, 3, 8, 8)
    assert made.labels.tolist() == [0] * ipc + [1] * ipc + [2] * ipc


def test_expand_repeats_and_extends(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """From statistics and prior alone: the same IPC gives the same images, another IPC what distilling it would have given."""
    images, prior = small
    two = quick(images, prior, tmp_path / "two", ipc=2)
    five = quick(images, prior, tmp_path / "five", ipc=5)
    assert torch.equal(two.expand(prior, 2, tmp_path / "two again").images, two.images)
    assert torch.equal(two.expand(prior, 5, tmp_path / "two to five").images, five.images)
    assert DistilledSet.load(tmp_path / "two to five").statistics["bee"].count == 5


def test_copies_of_a_mean_are_refused(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """At temperature 0 one mode gives one picture: a set of two is refused before any work, and made with a temperature above."""
    images, prior = small
    with pytest.raises(SettingsError, match="2 images of 1 mode"):
        quick(images, prior, tmp_path / "two", ipc=2, temperature=0)
    one = quick(images, prior, tmp_path / "one", ipc=1, temperature=0)
    with pytest.raises(SettingsError, match="--temperature above 0"):
        one.expand(prior, 2, tmp_path / "two")
    assert not (tmp_path / "two").exists()
    assert one.expand(prior, 2, tmp_path / "two", temperature=1.0).images.shape[0] == 6


def test_expand_refuses_another_prior_and_a_bare_set(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    images, prior = small
    made = quick(images, prior, tmp_path / "set", ipc=2)
    with pytest.raises(PriorError, match="not the prior"):
        made.expand(untrained_prior(("ant", "bee", "cat")), 2, tmp_path / "other")
    for name in ("statistics.safetensors", "SHA256SUMS"):
        (tmp_path / "set" / name).unlink()
    with pytest.raises(DistilledSetError, match="no statistics"):
        DistilledSet.load(tmp_path / "set").expand(prior, 2, tmp_path / "other")


def test_statistics_alone_make_any_number_of_images_later(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """Without images the set has no pictures and says so; expanded, it gives the pixels that distilling would have given."""
    images, prior = small
    kept = quick(images, prior, tmp_path / "kept", store="statistics")
    names = ["README.md", "SHA256SUMS", "contents.safetensors", "manifest.json", "run.json", "statistics.safetensors"]
    assert sorted(path.name for path in kept.path.iterdir()) == names
    assert (kept.manifest.ipc, [entry.images for entry in kept.manifest.classes]) == (0, [0, 0, 0])
    with pytest.raises(DistilledSetError, match="d3hr expand"):
        _ = kept.images
    three = quick(images, prior, tmp_path / "three", ipc=3)
    assert torch.equal(kept.expand(prior, 3, tmp_path / "expanded").images, three.images)


@pytest.mark.slow
def test_half_precision_statistics(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """Half the bytes, within 5e-4 of the float32 ones, and expand still repeats what distil drew."""
    images, prior = small
    exact, half = (quick(images, prior, tmp_path / dtype, ipc=2, statistics_dtype=dtype) for dtype in ("float32", "float16"))
    for name in ("ant", "bee", "cat"):
        torch.testing.assert_close(half.statistics[name].mean, exact.statistics[name].mean, rtol=5e-4, atol=1e-6)
        torch.testing.assert_close(half.statistics[name].std, exact.statistics[name].std, rtol=5e-4, atol=1e-6)
    saved = exact.manifest.storage["statistics"] - half.manifest.storage["statistics"]
    assert saved == pytest.approx(2 * 3 * 64 * 2, abs=16)  # mean and std, three classes, 64 dimensions, two bytes each, but for the header
    assert torch.equal(half.expand(prior, 2, tmp_path / "again").images, half.images)


def test_storage_counts_bytes_apart(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    images, prior = small
    made = quick(images, prior, tmp_path / "set", ipc=2)
    values = sum(value.numel() for network in (prior.network, prior.vae) for value in network.state_dict().values())
    assert made.manifest.storage == {
        "images": sum(file.stat().st_size for file in (made.path / "train").rglob("*.png")),
        "statistics": (made.path / "statistics.safetensors").stat().st_size,
        "soft_labels": 0,
        "prior": 4 * values,
    }


def test_a_class_map_decides_what_is_drawn(small: tuple[ImageData, Prior], image_folder: MakeFolder, tmp_path: Path) -> None:
    """A folder of another name is refused, then drawn as the class that the map names; the manifest tells, and expand follows it."""
    _, prior = small
    renamed = load_images(image_folder({"formica": 4, "bee": 4}, name="renamed"))
    with pytest.raises(ClassMismatch, match="formica"):
        quick(renamed, prior, tmp_path / "set")
    made = quick(renamed, prior, tmp_path / "set", ipc=2, class_map={"formica": "ant"})
    assert [(entry.name, entry.conditioning_id, entry.prior_class) for entry in made.manifest.classes] == [
        ("bee", 3, "bee"),
        ("formica", 1, "ant"),
    ]
    other = quick(renamed, prior, tmp_path / "other", ipc=2, class_map={"formica": "dog"})
    assert torch.equal(other.of_class("bee"), made.of_class("bee"))
    assert not torch.equal(other.of_class("formica"), made.of_class("formica"))
    assert torch.equal(made.expand(prior, 2, tmp_path / "again").images, made.images)


def test_the_order_of_the_classes_changes_nothing(image_folder: MakeFolder, tmp_path: Path) -> None:
    """The same images under the same names, labelled in two orders, behind priors that list the classes in two orders of their own."""
    names = ["goldfish", "king penguin", "school bus"]
    folder = image_folder(dict.fromkeys(names, 4))
    files = {name: sorted((folder / name).iterdir()) for name in names}
    made = []
    for number, order in enumerate((names, names[::-1])):
        paths = [path for name in order for path in files[name]]
        labels = [label for label in range(3) for _ in range(4)]
        images = load_images(write_parquet(tmp_path / f"table{number}", paths, labels, order))
        prior = untrained_prior(("king penguin, Aptenodytes patagonica", "school bus", "goldfish, Carassius auratus"))
        made.append(quick(images, prior, tmp_path / f"set{number}", ipc=3))
    assert made[0].class_names == made[1].class_names[::-1]
    for name in names:
        assert torch.equal(made[0].of_class(name), made[1].of_class(name))
    ids = [{entry.name: entry.conditioning_id for entry in one.manifest.classes} for one in made]
    assert ids[0] == ids[1] == {"goldfish": 2, "king penguin": 0, "school bus": 1}


def test_half_precision_that_overflows_is_stopped_where_it_happens(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """Numbers that float16 cannot hold: class and level are named, other precisions suggested, nothing half-made is kept."""

    def prior_in(dtype: torch.dtype) -> Prior:
        prior = untrained_prior(("ant", "bee", "cat"))
        for block in prior.network.transformer_blocks:
            block.ff.net[2].weight.mul_(1e6)
        prior.network.to(dtype)
        return prior

    with pytest.raises(NumericalError, match=r"(?s)Class 'ant': The inversion.*at level 1 of 3.*bf16 or fp32"):
        quick(small[0], prior_in(torch.float16), tmp_path / "half", ipc=2)
    assert not (tmp_path / "half").exists()
    assert list((tmp_path / "half.partial" / "statistics").iterdir()) == []
    assert len(quick(small[0], prior_in(torch.bfloat16), tmp_path / "bf16", ipc=2).images) == 6


def test_a_class_does_not_depend_on_the_others(image_folder: MakeFolder, tmp_path: Path) -> None:
    prior = untrained_prior(("ant", "bee", "cat"))
    root = image_folder({"ant": 4, "bee": 4, "cat": 4})
    whole = quick(load_images(root), prior, tmp_path / "whole", ipc=3)
    for path in sorted((root / "ant").iterdir()):
        path.unlink()
    (root / "ant").rmdir()
    part = quick(load_images(root), prior, tmp_path / "part", ipc=3)
    assert torch.equal(part.of_class("cat"), whole.of_class("cat"))


def test_the_same_command_again_returns_the_finished_set(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    quick(*small, tmp_path / "set", ipc=2)
    before = tree(tmp_path / "set")
    quick(*small, tmp_path / "set", ipc=2)
    assert tree(tmp_path / "set") == before
    with pytest.raises(OutputError, match="already exists"):
        quick(*small, tmp_path / "set", ipc=3)


def test_hostile_class_names_stay_inside(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Names are kept in the manifest, escaped in the card, and never leave the folder."""
    names = ("<img src=x onerror=alert(1)>", "a | b", "emoji 🐈", "test")
    images = load_images(image_folder(dict.fromkeys(names, 2)))
    made = quick(images, untrained_prior(names), tmp_path / "out" / "set", ipc=2)
    assert made.class_names == tuple(sorted(names))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set"]
    assert "<img" not in (tmp_path / "out" / "set" / "README.md").read_text()


@pytest.mark.slow
def test_a_table_whose_class_names_are_no_folder_names(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Slashes and dots, as in Fashion-MNIST's "T-shirt/top": one folder each, the true names in the manifest."""
    names = ["T-shirt/top", "../../escape", "Bag"]
    files = sorted(image_folder({"x": 6}).rglob("*.png"))
    images = load_images(write_parquet(tmp_path / "table", files, [0, 1, 2, 0, 1, 2], names))
    made = quick(images, untrained_prior(tuple(names)), tmp_path / "out" / "set", ipc=2)
    assert made.class_names == tuple(names)
    assert sorted(path.name for path in (made.path / "train").iterdir()) == ["%2E.%2F..%2Fescape", "Bag", "T-shirt%2Ftop"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set"]


def test_bad_input_is_refused_before_anything_is_written(small: tuple[ImageData, Prior], image_folder: MakeFolder, tmp_path: Path) -> None:
    images, prior = small
    with pytest.raises(ClassMismatch, match=r"1 class.*: cat") as caught:
        quick(images, untrained_prior(("ant", "bee")), tmp_path / "set")
    assert "the prior has [ant, bee]" in str(caught.value)
    with pytest.raises(DataError, match="two images"):
        quick(load_images(image_folder({"ant": 1, "bee": 3}, name="few")), prior, tmp_path / "set")
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("--ipc", {"ipc": 0}),
        ("preset", {"preset": "best"}),
        ("grid of 6", {"statistics_level": 6}),
        ("--level", {"level": 3}),
        ("--solver", {"solver": "magic"}),
        ("out of range", {"steps": 2000}),
    ]
    for words, changes in refusals:
        with pytest.raises(SettingsError, match=words):
            quick(images, prior, tmp_path / "set", **changes)
    assert not (tmp_path / "set").exists()
    assert not (tmp_path / "set.partial").exists()


def test_numbers_that_are_not_finite_stop_the_run(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    images, prior = small
    prior.network.proj_out_2.bias[0] = torch.nan
    with pytest.raises(NumericalError, match=r"(?s)Class 'ant': The inversion .* at level 1 of 3 \(time 166\).*bf16 or fp32"):
        quick(images, prior, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert list((tmp_path / "set.partial" / "statistics").iterdir()) == []


def test_a_folder_that_is_no_set(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    with pytest.raises(DistilledSetError, match="no manifest"):
        DistilledSet.load(tmp_path)
    made = quick(*small, tmp_path / "set", ipc=2)
    next((tmp_path / "set" / "train" / "ant").iterdir()).unlink()
    with pytest.raises(DistilledSetError, match="lack images"):
        DistilledSet.load(made.path)
    (tmp_path / "set" / "manifest.json").write_text("{")
    with pytest.raises(DamagedFile, match="damaged"):
        DistilledSet.load(made.path)
    (tmp_path / "open.partial").mkdir()
    with pytest.raises(DistilledSetError, match="unfinished"):
        DistilledSet.load(tmp_path / "open")
