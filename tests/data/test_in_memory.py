"""Images that a program holds already: each kind gives the same images as class folders, or is refused."""

import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from d3hr import load_images, random_real
from d3hr.cli.options import Reading
from d3hr.cli.origins import data_of_set
from d3hr.errors import D3hrError, DataError, SettingsError, UnreadableImages
from d3hr.progress import SILENT, OnTerminal
from tests.data.test_containers import COUNTS, FILES, class_folders, loose, pixels
from tests.data.test_reading import draw

NAMES = ["cat", "dog"]
LABELS = [0, 0, 1]


def files(root: Path) -> list[str]:
    return [str(loose(root / "loose") / file) for file in FILES]


def pictures(root: Path) -> list[Image.Image]:
    return [Image.fromarray(image) for image in pixels()]


def table(root: Path, **columns: Any) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"image": files(root), "label": LABELS}, features=features)


class Pairs(Dataset[Any]):
    """A data set of PyTorch, as those of torchvision are."""

    def __init__(self, images: list[Any], labels: list[Any], **attributes: Any) -> None:
        self.images, self.labels = images, labels
        self.__dict__.update(attributes)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.labels[index]

    def __len__(self) -> int:
        return len(self.images)


class Noisy(Pairs):
    """One with a random transform."""

    def __getitem__(self, index: int) -> Any:
        return torch.rand(3, 8, 8), self.labels[index]


class Rows(Pairs):
    def __getitem__(self, index: int) -> Any:
        return {"image": self.images[index], "label": self.labels[index]}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def floats(*, channels_first: bool) -> torch.Tensor:
    images = torch.from_numpy(pixels()).float() / 255
    return images.permute(0, 3, 1, 2) if channels_first else images


READ: dict[str, Callable[[Path], tuple[Any, dict[str, Any]]]] = {
    "a datasets.Dataset": lambda root: (table(root), {}),
    "a datasets.Dataset with a format": lambda root: (table(root).with_format("torch"), {}),
    "a datasets.Dataset with a transform": lambda root: (table(root).with_transform(lambda rows: {"pixel_values": [0]}), {}),
    "a datasets.Dataset of numbers and class_names": lambda root: (
        table(root).cast_column("label", datasets.Value("int64")),
        {"class_names": NAMES},
    ),
    "a datasets.DatasetDict": lambda root: (datasets.DatasetDict({"test": table(root).select([0]), "train": table(root)}), {}),
    "a split of a datasets.DatasetDict": lambda root: (
        datasets.DatasetDict({"validation": table(root), "train": table(root).select([0])}),
        {"split": "val"},
    ),
    "a torch Dataset of Pillow images": lambda root: (Pairs(pictures(root), LABELS, classes=NAMES), {}),
    "a torch Dataset with targets": lambda root: (Pairs(pictures(root), LABELS, classes=NAMES, targets=torch.tensor(LABELS)), {}),
    "a torch Dataset with class_names": lambda root: (Pairs(pictures(root), LABELS), {"class_names": NAMES}),
    "a part of a torch Dataset": lambda root: (
        Subset(Pairs([*pictures(root), Image.new("RGB", (8, 8))], [*LABELS, 1], classes=NAMES, targets=[*LABELS, 1]), [0, 1, 2]),
        {},
    ),
    "a list of Pillow images": lambda root: ((pictures(root), LABELS), {"class_names": NAMES}),
    "a list of paths": lambda root: ((files(root), list(FILES.values())), {}),
    "an array of paths": lambda root: ((np.array(files(root)), np.array(list(FILES.values()), dtype=object)), {}),
    "an array, and a list of names": lambda root: ((pixels(), list(FILES.values())), {}),
    "an array [N, C, H, W], and an array of numbers": lambda root: (
        (pixels().transpose(0, 3, 1, 2), np.array(LABELS)),
        {"class_names": NAMES},
    ),
    "a tensor of floats from 0 to 1": lambda root: ((floats(channels_first=True), torch.tensor(LABELS)), {"class_names": NAMES}),
    "a list of arrays": lambda root: ((list(pixels()), list(FILES.values())), {}),
    "a torch Dataset of tensors": lambda root: (Pairs(list(floats(channels_first=True)), list(torch.tensor(LABELS)), classes=NAMES), {}),
    "a torch Dataset of grey images": lambda root: (Pairs([image[..., 0] for image in pixels()], LABELS, classes=NAMES), {}),
}
ENCODED = [name for name in READ if name == "an array of paths" or ("array" not in name and "tensor" not in name and "grey" not in name)]
"""Those whose contents are files, or become the files that Pillow writes."""
REFUSED: dict[str, tuple[Callable[[Path], Any], type[D3hrError], str]] = {
    "too few labels": (lambda root: (pixels(), [0, 1]), DataError, "3 images"),
    "labels that are no classes": (lambda root: (pixels(), [0.5, 0.1, 0.2]), DataError, "not one per image"),
    "a label of None": (lambda root: (pixels(), [0, 0, None]), DataError, "not one per image"),
    "a label beyond classes": (lambda root: Pairs(pictures(root), [0, 1, 2], classes=NAMES), DataError, "labels such as 2, 2 names"),
    "no images at all": (lambda root: ([], []), DataError, "holds no images"),
    "an empty torch Dataset": (lambda root: Pairs([], []), DataError, "holds no images"),
    "an empty datasets.Dataset": (lambda root: table(root).select([]), DataError, "holds no images"),
    "normalised images": (lambda root: (floats(channels_first=True) * 2 - 1, LABELS), DataError, "floats outside 0 to 1"),
    "a torch Dataset of normalised images": (
        lambda root: Pairs(list(floats(channels_first=True) * 2 - 1), LABELS),
        UnreadableImages,
        "3 images: floats outside 0 to 1",
    ),
    "random transforms": (lambda root: Noisy(files(root), LABELS), DataError, "other images each time"),
    "a torch Dataset of something else": (lambda root: Pairs([{}, {}, {}], LABELS), UnreadableImages, "dict, where a Pillow image"),
    "a torch Dataset of dictionaries": (lambda root: Rows(files(root), LABELS), DataError, "dict of 2"),
    "a file that is not there": (lambda root: ([*files(root)[:2], "none.png"], LABELS), UnreadableImages, "none.png: no content"),
    "a Dataset without labels": (lambda root: table(root).remove_columns("label"), DataError, "label_column|label-column"),
    "a stream": (lambda root: table(root).to_iterable_dataset(), SettingsError, "without streaming"),
    "an IterableDataset": (lambda root: Stream(), SettingsError, "without streaming"),
    "a DataLoader": (lambda root: DataLoader(Pairs([], [1])), SettingsError, "loader.dataset"),
    "images without labels": (lambda root: pixels(), SettingsError, r"a pair \(images, labels\)"),
    "three things": (lambda root: (pixels(), LABELS, NAMES), SettingsError, r"a pair \(images, labels\)"),
    "a number for the images": (lambda root: (3, LABELS), DataError, "no images with labels"),
}


@pytest.mark.parametrize("name", READ)
def test_every_kind_gives_the_same_images(tmp_path: Path, name: str) -> None:
    given, options = READ[name](tmp_path)
    images = load_images(given, **options)
    assert images.counts == COUNTS
    assert images.in_memory
    expected = pixels()[..., :1].repeat(3, -1) if "grey" in name else pixels()
    assert np.array_equal(images.tensors()[0].permute(0, 2, 3, 1).numpy(), expected)
    assert pickle.loads(pickle.dumps(images)).of_class("cat").equal(images.of_class("cat"))


@pytest.mark.parametrize("name", ENCODED)
def test_the_fingerprint_is_that_of_the_same_files(tmp_path: Path, name: str) -> None:
    """And so are duplicates, and what is kept from run to run."""
    given, options = READ[name](tmp_path / "given")
    assert load_images(given, **options).fingerprint == load_images(class_folders(tmp_path / "plain")).fingerprint


def test_arrays_have_the_fingerprint_of_their_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=pixels(), labels=list(FILES.values()))
    on_disk = load_images(tmp_path / "x.npz").fingerprint
    assert load_images((pixels(), list(FILES.values()))).fingerprint == on_disk
    assert load_images((list(pixels()), list(FILES.values()))).fingerprint == on_disk


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    make, error, words = REFUSED[name]
    with pytest.raises(error) as caught:
        load_images(make(tmp_path))
    assert re.search(words, str(caught.value)), caught.value
    assert caught.value.found and caught.value.hint


def test_sources_have_names_and_rows(tmp_path: Path) -> None:
    named = {
        "datasets.Dataset": table(tmp_path),
        "tests.data.test_in_memory.Pairs": Subset(Pairs(pictures(tmp_path), [3, 3, 7]), [0, 2]),
        "arrays": (pixels(), LABELS),
        "lists": (pictures(tmp_path), LABELS),
    }
    for source, given in named.items():
        images = load_images(given)
        assert images.source == source
        last = images.class_names[-1]
        assert images.names(last, [0]) in ([f"{source}[{len(images) - 1}]"], [f"{source} row 2"])
    assert load_images(named["tests.data.test_in_memory.Pairs"]).class_names == ("3", "7")
    assert load_images((files(tmp_path), LABELS)).names("1", [0]) == [files(tmp_path)[2]]


def test_duplicates_are_found(tmp_path: Path) -> None:
    images = load_images((np.concatenate([pixels(), pixels()[:1]]), [*LABELS, 0]))
    assert images.counts == {"0": 2, "1": 1}
    assert any("1 exact duplicate(s)" in note and "arrays[3]" in note for note in images.notes)


def test_names_of_classes_in_a_list_are_for_any_source(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=pixels(), labels=LABELS)
    assert load_images(tmp_path / "x.npz", class_names=NAMES).counts == COUNTS
    assert load_images(table(tmp_path), class_names=["lion", "wolf"]).class_names == ("lion", "wolf")
    for given, names in (
        ((pixels(), LABELS), ["cat"]),
        ((pixels(), LABELS), ["a", "a"]),
        (table(tmp_path), ["a"]),
        (table(tmp_path), ["a", "a"]),
    ):
        with pytest.raises(DataError, match="fit"):
            load_images(given, class_names=names)
    with pytest.raises(DataError, match="Class 'bird' of arrays has no readable image"):
        load_images((pixels(), LABELS), class_names=[*NAMES, "bird"])


def test_bad_images_may_be_skipped(tmp_path: Path) -> None:
    given = ([*pictures(tmp_path), np.full((8, 8, 3), 2.0)], [*LABELS, 1])
    images = load_images(given, on_bad_image="skip")
    assert images.counts == {"0": 2, "1": 1}
    assert images.skipped == (
        "lists[3]: floats outside 0 to 1: give images as they are before Normalize: uint8, or floats from 0 (black) to 1 (white)",
    )


def test_pictures_of_pillow_are_upright_and_of_any_mode(tmp_path: Path) -> None:
    """As the same files are."""
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "plain.png", 3)
    with Image.open(tmp_path / "plain.png") as plain:
        plain.save(tmp_path / "turned.png", exif=exif)
        plain.convert("RGBA").save(tmp_path / "clear.png")
        plain.convert("CMYK").save(tmp_path / "ink.tif")
    paths = [str(tmp_path / name) for name in ("plain.png", "turned.png", "clear.png", "ink.tif")]
    given = [Image.open(path) for path in paths]
    by_path, by_picture = (load_images((each, [0, 0, 1, 1]), keep_duplicates=True) for each in (paths, given))
    assert torch.equal(by_path.tensors()[0], by_picture.tensors()[0])
    assert not torch.equal(by_path.of_class("0")[0], by_path.of_class("0")[1])


def test_channels_come_first_in_tensors_where_both_are_possible() -> None:
    """Three channels of 6 x 4 pixels, not 3 x 6 pixels of four channels; arrays are taken the other way round."""
    images = torch.randint(0, 256, (2, 3, 6, 4), dtype=torch.uint8)
    assert load_images((images, [0, 1])).sizes == load_images((list(images), [0, 1])).sizes == {(4, 6): 2}
    assert load_images((list(torch.zeros(2, 6, 4, 3)), [0, 1])).sizes == {(4, 6): 2}
    assert load_images((np.zeros((2, 4, 6, 4), np.uint8), [0, 1])).sizes == {(6, 4): 2}


def test_targets_that_are_not_the_labels_are_not_used(tmp_path: Path) -> None:
    """As with a target transform that the data set does not name."""
    images = load_images(Pairs(pictures(tmp_path), ["cat", "cat", "dog"], targets=[0, 1, 1]))
    assert images.counts == COUNTS


def test_a_damaged_item_without_known_labels_is_named(tmp_path: Path) -> None:
    class Broken(Pairs):
        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise OSError("broken file 2")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="broken file 2"):
        load_images(Broken(pictures(tmp_path), LABELS))
    images = load_images(Broken([*pictures(tmp_path), 255 - pixels()[2]], [*LABELS, 1], targets=[*LABELS, 1]), on_bad_image="skip")
    assert "broken file 2" in images.skipped[0]


def test_the_synonyms_of_imagenet_are_one_name(tmp_path: Path) -> None:
    pairs = Pairs(pictures(tmp_path), LABELS, classes=[("tench", "Tinca tinca"), ("goldfish",)])
    assert load_images(pairs).class_names == ("tench, Tinca tinca", "goldfish")
    assert load_images(ConcatDataset([pairs, pairs])).class_names == ("0", "1")


def test_a_set_says_that_its_images_were_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What reads them again says what to give; the manifest of other sets has no such entry."""
    images = load_images((pixels(), list(FILES.values())))
    chosen = random_real(images, tmp_path / "set", ipc=1, image_size=8)
    assert chosen.manifest.data.source == "arrays" and chosen.manifest.data.in_memory
    assert "`arrays`, in the memory of a program" in (chosen.path / "README.md").read_text()
    assert data_of_set(str(chosen.path), chosen, None, None, Reading(), OnTerminal()) is None
    assert "made from arrays, in the memory of a Python program" in capsys.readouterr().err
    on_disk = data_of_set(str(chosen.path), chosen, str(class_folders(tmp_path / "plain")), None, Reading(), SILENT)
    assert on_disk is not None and on_disk.counts == COUNTS
    assert "in_memory" not in on_disk.record.model_dump()
