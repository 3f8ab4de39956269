import json
from pathlib import Path

import pytest
import yaml

from d3hr import DistilledSet
from d3hr.__main__ import main
from d3hr.methods.registry import METHODS
from tests.conftest import MakeFolder, tree, untrained_prior

CLASSES = {"ant": 4, "bee": 4, "cat": 4}


@pytest.fixture
def place(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    image_folder(CLASSES, size=12)
    untrained_prior(tuple(CLASSES)).save_pretrained(tmp_path / "prior")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_baseline_by_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real images have their own size, with a prior the prior's; settings are saved, and repeat the set."""
    assert main(["baseline", "herding", "images", "--out", "real", "--ipc", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "herding"
    assert DistilledSet.load("real").images.shape == (6, 3, 12, 12)
    options = ["--prior", "prior", "--settings", "{space: latent}", "--ipc", "2"]
    assert main(["baseline", "k_means", "images", "--out", "latent", *options]) == 0
    assert "real images nearest to k-means centres" in capsys.readouterr().out
    assert DistilledSet.load("latent").images.shape == (6, 3, 8, 8)
    assert yaml.safe_load((place / "latent" / "settings.yaml").read_text())["settings"] == {"space": "latent"}
    assert len(list((place / "latent-shared").iterdir())) == 1
    assert main(["baseline", "--config", "latent/settings.yaml", "--out", "again", "--shared", "latent-shared"]) == 0
    assert tree(place / "again" / "train") == tree(place / "latent" / "train")


def test_a_packed_baseline_by_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four images of 8 px in one of 16; at the data's own 12 pixels they would have 6, which is refused before anything is written."""
    packed = ["baseline", "random_real", "images", "--out", "packed", "--ipc", "1", "--settings", "{pack: 2}"]
    assert main(packed) == 2
    assert "pictures of 6 pixels" in capsys.readouterr().err and not (place / "packed").exists()
    assert main([*packed, "--image-size", "16"]) == 0
    assert "random real images, packed 2x2, 4 images per stored image (look at" in capsys.readouterr().out
    assert DistilledSet.load("packed").images.shape == (3, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["magic"], "use one of: d3hr, chosen"),
        (["patches"], "Method patches needs a teacher"),
        (["prior_only"], "Method prior_only needs a prior"),
        (["herding", "--settings", "{spice: pixel}"], "Method herding has no setting 'spice'"),
        (["d3hr", "--prior", "prior", "--settings", "{ipc: 2}"], "Method d3hr has no setting 'ipc'"),
        (["d3hr", "--prior", "prior", "--image-size", "16"], "use --image-size 8"),
        (["random_real", "--ipc", "5"], "fewer than 5 real images"),
        (["patches", "--teacher", "images"], "images is not a teacher"),
    ],
)
def test_bad_input_is_one_clear_message(place: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(place)
    assert main(["baseline", arguments[0], "images", "--out", "set", *arguments[1:]]) == 2
    assert words in capsys.readouterr().err
    assert tree(place) == before


def test_help_lists_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["baseline", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in METHODS)
