from pathlib import Path

from d3hr import load_images
from d3hr.comparison.trainings import Setting, evaluate_once
from d3hr.evaluation.protocols import protocol_from
from tests.conftest import MakeFolder


def test_the_name_of_a_protocol_is_no_path(image_folder: MakeFolder, tmp_path: Path) -> None:
    """A protocol's file may call it ``../../escape``: its result is written into the folder of trainings all the same, and found again."""
    images = load_images(image_folder({"ant": 2, "bee": 2}))
    (tmp_path / "a" / "trainings").mkdir(parents=True)
    protocol = protocol_from({"name": "../../escape", "steps": 1, "batch_size": 4, "learning_rate": 0.1, "checks": 1})
    made = evaluate_once(images, images, Setting("convnet1", protocol), 0, tmp_path / "a" / "trainings")
    assert [file.name for file in (tmp_path / "a" / "trainings").iterdir() if file.name.startswith("convnet1-..%2F..%2Fescape-")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "images"]
    assert evaluate_once(images, images, Setting("convnet1", protocol), 0, tmp_path / "a" / "trainings") == made
