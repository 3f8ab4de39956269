from pathlib import Path

import pytest

from d3hr import load_images
from d3hr.cli.output import next_evaluation
from d3hr.fileio.names import sibling
from tests.conftest import MakeFolder


def test_results_about_a_set_are_next_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the set is the current folder; a Hub id has no folder, so its results are in the current one."""
    (tmp_path / "sets" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert sibling("sets/one", "-evaluation") == Path("sets/one-evaluation")
    assert sibling("sets/one/", "-evaluation") == Path("sets/one-evaluation")
    assert sibling("user/images", "-report.html") == Path("images-report.html")
    monkeypatch.chdir(tmp_path / "sets" / "one")
    assert sibling(".", "-diagnosis") == tmp_path / "sets" / "one-diagnosis"


@pytest.mark.parametrize(
    ("splits", "test"),
    [(["Train", "Val"], "{} --test-split Val"), (["train", "val", "test"], "{} --test-split test"), (["."], "FOLDER_OF_TEST_IMAGES")],
)
def test_the_next_step_names_a_split_that_is_there(splits: list[str], test: str, image_folder: MakeFolder) -> None:
    for split in splits:
        image_folder({"ant": 1, "bee": 1}, name=f"photos/{split}")
    images = load_images(image_folder({}, name="photos"))
    assert next_evaluation("set", images) == f"Next: d3hr evaluate set --test {test.format(images.source)}"
    assert next_evaluation("set") == "Next: d3hr evaluate set --test FOLDER_OF_TEST_IMAGES"
