from pathlib import Path

import datasets
import pytest
from PIL import Image

from d3hr.fileio.names import class_folders

HARD = [
    "cat",
    "king penguin",
    "T-shirt/top",
    "..",
    ".hidden",
    "a\\b",
    "<img src=x onerror=alert(1)>",
    "emoji 🐈",
    "50%",
    "50%25",
    "test",
    "test tube",
    "val-d'or",
    "bullet train",
    "Case",
    "case",
    "__private",
    " space ",
    "dot.",
    "nul\0",
    "x" * 300,
    "[brackets]*?",
    "",
]


def test_names_that_are_safe_stay_as_they_are() -> None:
    assert class_folders(["cat", "king penguin", "emoji 🐈"]) == {name: name for name in ["cat", "king penguin", "emoji 🐈"]}


def test_every_name_gets_a_folder_of_its_own_inside(tmp_path: Path) -> None:
    """One path component, made and found again under the same name, and different for different names even if case is ignored."""
    folders = class_folders(HARD)
    assert len({folder.casefold() for folder in folders.values()}) == len(HARD)
    for folder in folders.values():
        (tmp_path / folder).mkdir()
        assert (tmp_path / folder).resolve().parent == tmp_path.resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folders.values())


def test_readable_where_it_can_be() -> None:
    folders = class_folders(["T-shirt/top", "..", "test tube", "Case", "case"])
    assert folders["T-shirt/top"] == "T-shirt%2Ftop"
    assert folders["test tube"] == "%74est tube"
    assert folders[".."] == "%2E%2E"
    assert folders["Case"].startswith("Case~")


def test_hugging_face_reads_every_folder_as_a_class(tmp_path: Path) -> None:
    """No folder is hidden, and none is taken for a split."""
    folders = class_folders(HARD)
    for folder in folders.values():
        (tmp_path / "train" / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / folder / "0.png")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert sorted(loaded["train"].features["label"].names) == sorted(folders.values())


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="differ"):
        class_folders(["a", "a"])
