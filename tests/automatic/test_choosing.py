"""Choices on small digits: what is handed out, that it can be had again, and that chance is called chance."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3hr import DistilledSet, distill, load_images
from d3hr.__main__ import main
from d3hr.automatic import choosing, search
from d3hr.automatic.candidates import CHOSEN
from d3hr.automatic.choosing import choose_set
from d3hr.automatic.students import StudentPlan, plan_students
from d3hr.automatic.trials import Trials
from d3hr.cli.options import READING
from d3hr.errors import DataError, SettingsError
from d3hr.evaluation.choice import REAL, Choice
from d3hr.progress import SILENT, Progress
from d3hr.sets.distilled_set import open_set
from tests.conftest import MakeFolder

CLASSES = ("0", "1", "2")


def write_digits(root: Path, *, count: int = 40, shuffled: bool = False, skip: int = 0) -> Path:
    """Write digits as files; shuffled, each lies in the folder of any class, whatever it shows."""
    digits, generator = load_images("digits"), np.random.default_rng(1)
    for name in CLASSES:
        for index, pixels in enumerate(digits.pixels(name, range(skip, skip + count))):
            folder = root / (str(generator.integers(len(CLASSES))) if shuffled else name)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{name}-{index:03d}.png")
    return root


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sets of each way, none of the leaders alone, no prior, 20 steps: the whole choice takes some seconds, of ten minutes."""
    monkeypatch.setattr(choosing, "plan_students", lambda images, ipc, seconds: StudentPlan(8, 20, 0.002, 0.005))
    monkeypatch.setattr(search, "SETS", 2)
    monkeypatch.setattr(search, "MOST_SETS", 2)
    monkeypatch.setattr(search, "FIT_SECONDS", 1e9)


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> checksum of every file below a folder, less the settings of the command."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "settings.yaml")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_folder_and_nothing_else_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The set, its page and the evidence are next to the folder; the printed command makes every way's set again, to the last byte."""
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / "PHOTOS")
    write_digits(tmp_path / "TEST", count=10, skip=50)
    assert main(["distill", "PHOTOS", "--ipc", "2", "--minutes", "10", "--test", "TEST"]) == 0
    said = capsys.readouterr().out
    choice = Choice.read(tmp_path / "PHOTOS-distilled-choice")
    assert said.splitlines()[0] == choice.headline and choice.winner.command in said and choice.next_step in said
    assert DistilledSet.load("PHOTOS-distilled").ipc == 2
    page = (tmp_path / "PHOTOS-distilled-report.html").read_text()
    assert page.index(choice.headline.split(":")[0].split(";")[0]) < page.index('id="choice"')
    assert (choice.held_out, choice.training_images, choice.tested and choice.tested.images) == (24, 96, 30)
    assert [trial.name for trial in choice.trials] == [REAL, *(one.name for one in CHOSEN)]
    assert choice.full_accuracy is not None and choice.winner.mean == max(trial.mean for trial in choice.trials)

    for number, trial in enumerate(choice.trials):
        again = f"again-{number}"
        arguments = trial.command.replace("PHOTOS-distilled", again).split()[1:]
        assert main(arguments) == 0
        kept = next(path for path in (tmp_path / "PHOTOS-distilled-choice" / "sets").iterdir() if path.name == f"{trial.name}-0")
        assert contents(tmp_path / again) == contents(kept)
    assert contents(tmp_path / "PHOTOS-distilled") == contents(
        tmp_path / f"again-{[one.name for one in choice.trials].index(choice.chosen)}"
    )

    assert main(["distill", "PHOTOS", "--ipc", "2", "--minutes", "10", "--test", "TEST"]) == 0  # nothing is computed again
    assert main(["report", "PHOTOS-distilled"]) == 0
    assert "Choice" in (tmp_path / "PHOTOS-distilled-report.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_held_out_images_are_in_no_set(tmp_path: Path) -> None:
    images = load_images(write_digits(tmp_path / "digits"))
    outcome = choose_set(images, None, tmp_path / "set", ipc=4, minutes=10)
    training, held_out = images.divided(0.2)
    pixels = {image.numpy().tobytes() for name in CLASSES for image in held_out.of_class(name)}
    sets = [open_set(folder) for folder in (outcome.folder / "sets").iterdir()]
    assert len(sets) == 2 * len(outcome.choice.trials)
    assert not any(image.numpy().tobytes() in pixels for made in sets for image in made.tensors()[0])
    assert outcome.distilled.manifest.data.hold_out == 0.2
    record = outcome.distilled.manifest.data
    found = READING.load(str(tmp_path / "digits"), None, SILENT, record=record)  # as evaluate and diagnose find them again
    assert found.fingerprint == record.fingerprint == training.fingerprint


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_soft_labels_are_those_of_a_teacher_that_the_budget_trains(tmp_path: Path) -> None:
    images = load_images(write_digits(tmp_path / "digits"))
    outcome = choose_set(images, None, tmp_path / "set", ipc=2, minutes=10, labels="soft")
    teacher = json.loads((outcome.folder / "teacher" / "teacher.json").read_text())
    assert (teacher["student"], teacher["data"]["images"], outcome.choice.labels) == ("convnet3", 96, "soft")
    results = json.loads((outcome.folder / "results.json").read_text())
    assert {row["labels"] for row in results} == {"soft"} and all(row["soft_label_bytes"] == 6 * 3 * 2 for row in results)


def test_the_command_refuses_what_has_no_part_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(write_digits(tmp_path / "digits", count=3))
    for flags, message in (
        (["--preset", "auto", "--keep", "easiest"], "The preset auto chooses all settings."),
        (["--preset", "auto", "--execution", "processes", "--workers", "2"], "The preset auto chooses all settings."),
        (["--preset", "real", "--out", "set", "--minutes", "3"], "--minutes is for sets that are chosen."),
        (["--preset", "real"], "--out is missing."),
        (["--minutes", "0.1", "--ipc", "1"], "--minutes is too short for a choice."),
    ):
        assert main(["distill", folder, *flags]) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "digits-distilled-choice"]


@pytest.mark.slow
def test_shuffled_labels_have_nothing_to_choose_by(tmp_path: Path) -> None:
    """Every digit lies in the folder of a class drawn at random: whatever is handed out, it is not said to be better."""
    images = load_images(write_digits(tmp_path / "digits", shuffled=True, count=60))
    choice = choose_set(images, None, tmp_path / "set", ipc=5, minutes=0.5).choice
    assert choice.headline.startswith("Nothing")
    assert all(trial.advantage is None or not trial.advantage.certain for trial in choice.trials)


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_stopped_choice_goes_on_and_says_what_is_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at the fourth student: the three before are not trained again, and the message names a set that is whole."""
    images, run, done = load_images(write_digits(tmp_path / "digits")), Trials.run, list[str]()

    def stopping(trials: Trials, *arguments: object) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        run(trials, *arguments)  # type: ignore[arg-type]
        done.append("student")

    monkeypatch.setattr(Trials, "run", stopping)
    said = Lines()
    with pytest.raises(KeyboardInterrupt):
        choose_set(images, None, tmp_path / "set", ipc=2, minutes=10, progress=said)
    best = next(line for line in said.lines if line.startswith("the best so far"))
    assert DistilledSet.load(best.rpartition(" in ")[2]).ipc == 2
    trainings = {path: path.stat().st_mtime_ns for path in (tmp_path / "set-choice" / "trainings").glob("*.json")}
    assert len(trainings) == 3 and not (tmp_path / "set").exists()

    monkeypatch.setattr(Trials, "run", run)
    outcome = choose_set(images, None, tmp_path / "set", ipc=2, minutes=10)
    assert all(path.stat().st_mtime_ns == before for path, before in trainings.items())
    spent = json.loads((tmp_path / "set-choice" / "spent.json").read_text())
    assert spent[REAL] == pytest.approx(60 * outcome.choice.real.minutes, abs=1)


class Lines(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_budget_decides_how_large_and_how_long_students_are(image_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 0.1 s at 32 px and a quarter of it at 16: half of 1,000 s holds 15 x 200 steps at 32 px and half of 500 s 15 x 100."""
    images = load_images(image_folder({"a": 2, "b": 2}, size=40))
    monkeypatch.setattr("d3hr.automatic.students.seconds_per_step", lambda classes, side, batch: 0.1 * (side / 32) ** 2)
    plans = [plan_students(images, 10, seconds) for seconds in (1000, 500, 200, 10)]
    assert [(one.image_size, one.steps) for one in plans] == [(32, 200), (32, 100), (16, 200), (16, 100)]
    assert plan_students(images, 500, 1000).steps == 200  # of 400 for a larger set


def test_what_cannot_be_chosen_from_is_refused(tmp_path: Path) -> None:
    images = load_images(write_digits(tmp_path / "digits", count=5))
    with pytest.raises(DataError, match="fewer than 5 real images"):
        distill(images, out=tmp_path / "set", ipc=5)
    assert not list(tmp_path.glob("set*"))
    with pytest.raises(SettingsError, match="chooses all settings"):
        distill(images, out=tmp_path / "set", preset="auto", keep="easiest")
    with pytest.raises(SettingsError, match="minutes is for sets that are chosen"):
        distill(images, out=tmp_path / "set", preset="real", minutes=3)
    with pytest.raises(SettingsError, match="held out already"):
        distill(load_images(tmp_path / "digits", hold_out=0.2), out=tmp_path / "set", ipc=1)
