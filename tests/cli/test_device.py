"""A command computes on its --device alone: none asks for the fastest one there is."""

from pathlib import Path

import pytest

from d3hr.__main__ import main
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import seeded_student
from tests.conftest import MakeFolder, untrained_prior

pytestmark = pytest.mark.slow

PAPER = "--steps 4 --level 2 --num-candidates 20"


def no_fastest() -> None:
    raise AssertionError("asked for the fastest device")


@pytest.fixture
def place(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, in which commands run, with a prior, a teacher, and protocols of three steps."""
    names = ("ant", "bee")
    for name in ("images", "tests"):
        image_folder(dict.fromkeys(names, 24), name=name)
    untrained_prior(names).save_pretrained(tmp_path / "prior")
    (tmp_path / "teacher").mkdir()
    Teacher(seeded_student("convnet1", 2, 8, 0), "convnet1", names, 8, {}).save(tmp_path / "teacher")
    (tmp_path / "brief.yaml").write_text("base: quick\nsteps: 3\nchecks: 1\n")
    (tmp_path / "soft.yaml").write_text("base: quick\nsteps: 3\nchecks: 1\nlabels: stored\ntemperature: 4.0\n")
    (tmp_path / "teaching.yaml").write_text("base: teacher\nepochs: null\nsteps: 3\nchecks: 1\n")
    (tmp_path / "matrix.yaml").write_text(
        "methods: [prototypes, chosen]\nipc: [1]\ndistillation_seeds: [0]\nstudents: [convnet1]\nprotocols: [brief.yaml]\n"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("place")
def test_no_command_looks_for_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr.prior.networks.fastest_device", no_fastest)
    test = "--test tests"
    commands = f"""
        distill images --prior prior --ipc 2 --out drawn {PAPER}
        distill images --candidates real --rule margin --ipc 2 --out chosen
        expand drawn --ipc 1 --out expanded
        evaluate drawn {test} --student convnet1 --seeds [0] --protocol soft.yaml --teacher teacher
        compare images {test} --matrix matrix.yaml --prior prior --out comparison
        train-teacher images {test} --student convnet1 --protocol teaching.yaml --out taught
        diagnose drawn
        plan images --prior prior
    """
    for command in commands.strip().splitlines():
        assert main([*command.split(), "--device", "cpu"]) == 0, command
