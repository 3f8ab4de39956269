"""One flipped bit in any file that d3hr wrote: the next run ends with the undisturbed bytes, or names the file and refuses it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d3hr import DistilledSet, ImageData, Prior, distill, load_images, random_real
from d3hr.comparison.trainings import Setting, evaluate_once
from d3hr.errors import DamagedFile
from d3hr.evaluation.images import training_images
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.latent_cache import Latents
from d3hr.progress import SILENT, Progress
from tests.conftest import ONE_PROCESS, MakeFolder, RecordingProgress, tree, untrained_prior
from tests.evaluation.test_teachers import Stopped, StopsAt
from tests.faults.conftest import flip_bit
from tests.prior.test_trainer import line

FLIPS = range(3)
BRIEF = protocol_named("teacher").model_copy(update={"epochs": 1, "flip": False, "shift": 0.0})
QUICK = protocol_named("quick").model_copy(update={"steps": 2, "checks": 1})


SETTINGS: dict[str, Any] = {"ipc": 3, "level": "auto", "steps": 6, "num_candidates": 50, "strategy": "search"}


@dataclass(frozen=True)
class UnderWay:
    """A distillation that was stopped before its set appeared.

    Attributes:
        images: its real images.
        prior: its prior.
        saved: what it left.
        expected: the files of the set that an undisturbed run makes.
    """

    images: ImageData
    prior: Prior
    saved: Path
    expected: dict[str, bytes]

    def start(self, out: Path, progress: Progress = SILENT) -> None:
        """Run the distillation."""
        distill(self.images, self.prior, out, progress=progress, **SETTINGS)

    def left_at(self, out: Path) -> Path:
        """Let a stopped run of the distillation into ``out`` have left what it did, and return where."""
        return Path(shutil.copytree(self.saved, out.with_name(out.name + ".partial")))


@pytest.fixture(scope="module")
def under_way(tmp_path_factory: pytest.TempPathFactory) -> UnderWay:
    """Two classes, large enough for a level to be chosen on them."""
    folder = tmp_path_factory.mktemp("under_way")
    for number, name in enumerate(("ant", "bee")):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(9):
            pixels = np.random.default_rng([number, index]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{index}.png")
    images, prior = load_images(folder / "images"), untrained_prior(("ant", "bee"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(StagedFolder, "commit", stops)
        distill(images, prior, folder / "out", **SETTINGS)
    shutil.copytree(folder / "out.partial", folder / "saved")
    distill(images, prior, folder / "out", **SETTINGS)
    return UnderWay(images, prior, folder / "saved", tree(folder / "out"))


def stops(*_: object, **__: object) -> None:
    raise Stopped


@pytest.mark.parametrize(
    "name", ["statistics/000000.safetensors", "level.json", "candidates.json", "train/bee/00001.png", "statistics.safetensors", "README.md"]
)
def test_a_piece_of_a_set_is_made_again(under_way: UnderWay, tmp_path: Path, name: str) -> None:
    for seed in FLIPS:
        flip_bit(under_way.left_at(tmp_path / f"{seed}") / name, seed)
        under_way.start(tmp_path / f"{seed}")
        assert tree(tmp_path / f"{seed}") == under_way.expected


def test_a_class_is_made_again_where_an_image_is_missing_or_one_too_many(under_way: UnderWay, tmp_path: Path) -> None:
    changes: list[Callable[[Path], object]] = [
        lambda folder: (folder / "00000.png").unlink(),
        lambda folder: (folder / "00003.png").write_bytes((folder / "00000.png").read_bytes()),
        lambda folder: (folder / "00000.png").write_bytes((folder / "00000.png").read_bytes()[:-20]),
    ]
    for number, change in enumerate(changes):
        out, progress = tmp_path / f"{number}", RecordingProgress()
        change(under_way.left_at(out) / "train" / "bee")
        under_way.start(out, progress)
        assert any("bee is damaged: it is made again" in line for line in progress.lines)
        assert tree(out) == under_way.expected


@pytest.mark.slow
def test_a_run_json_that_tells_nothing_is_refused(under_way: UnderWay, tmp_path: Path) -> None:
    """Unfinished or finished: nothing else tells whose pieces these are. They stay as they are."""
    out = tmp_path / "out"
    for name in ("out.partial", "out"):
        folder = Path(shutil.copytree(under_way.saved, tmp_path / name))
        for seed in range(10):
            (folder / "run.json").write_bytes((under_way.saved / "run.json").read_bytes())
            flip_bit(folder / "run.json", seed)
            before = tree(folder)
            with pytest.raises(DamagedFile, match=r"run\.json is damaged"):
                under_way.start(out)
            assert tree(folder) == before
        shutil.rmtree(folder)


def test_a_finished_set_that_is_damaged_is_never_overwritten(under_way: UnderWay, tmp_path: Path) -> None:
    out = tmp_path / "out"
    under_way.start(out)
    flip_bit(out / "train" / "ant" / "00000.png", 0)
    before = tree(out)
    with pytest.raises(DamagedFile, match=r"(?s)train/ant/00000\.png \(other bytes\).*delete .*out and repeat"):
        under_way.start(out)
    assert tree(out) == before
    shutil.rmtree(out)
    under_way.start(out)
    assert tree(out) == under_way.expected


@pytest.mark.slow
def test_a_checkpoint_of_a_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = line(tmp_path / "whole", 30)
    monkeypatch.setattr("d3hr.prior.trainer.CHECKPOINT_SECONDS", -1.0)
    for seed in range(10):
        folder = tmp_path / str(seed)
        with pytest.raises(KeyboardInterrupt):
            line(folder, 30, until=15)
        flip_bit(folder / "line.safetensors", seed)
        assert line(folder, 30).weight.equal(whole.weight)


def test_a_shard_of_latents(image_folder: MakeFolder, tmp_path: Path) -> None:
    images, prior = load_images(image_folder({"ant": 5, "bee": 6})), untrained_prior(("ant", "bee"))
    expected = Latents(images, prior.vae, tmp_path / "cache", ONE_PROCESS, SILENT).gather(torch.arange(11))
    files = tree(tmp_path / "cache")
    for name in ("000000000.safetensors", "latents.json"):
        for seed in range(10):
            flip_bit(tmp_path / "cache" / name, seed)
            found = Latents(images, prior.vae, tmp_path / "cache", ONE_PROCESS, SILENT)
            assert found.gather(torch.arange(11)).equal(expected)
            assert tree(tmp_path / "cache") == files


@pytest.mark.slow
def test_a_checkpoint_of_a_teacher(digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr.prior.trainer.CHECKPOINT_SECONDS", -1.0)
    given: dict[str, Any] = {"test": load_images("digits", split="test"), "student": "convnet1", "protocol": BRIEF}
    train_teacher(digits, tmp_path / "whole", **given)
    with pytest.raises(Stopped):
        train_teacher(digits, tmp_path / "out", progress=StopsAt(5), **given)
    for seed in FLIPS:
        shutil.copytree(tmp_path / "out.partial", tmp_path / f"{seed}.partial")
        flip_bit(tmp_path / f"{seed}.partial" / "checkpoint.safetensors", seed)
        train_teacher(digits, tmp_path / f"{seed}", **given)
        assert tree(tmp_path / f"{seed}") == tree(tmp_path / "whole")


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    """A finished teacher with random weights."""
    torch.manual_seed(0)
    with StagedFolder(tmp_path / "teacher", {"kind": "teacher"}) as stage:
        Teacher(new_student("convnet1", 2, 8).eval(), "convnet1", ("ant", "bee"), 8, {"accuracy": 0.5}).save(stage.path)
        stage.commit()
    return Teacher.load(tmp_path / "teacher")


def test_stored_soft_labels_and_the_result_of_a_training(image_folder: MakeFolder, teacher: Teacher, tmp_path: Path) -> None:
    images = load_images(image_folder({"ant": 5, "bee": 5}))
    made = random_real(images, tmp_path / "set", ipc=2, image_size=8)
    file = tmp_path / "soft.safetensors"
    expected = teacher.soft_labels(training_images(made, None), file)
    setting = Setting("convnet1", QUICK)
    (tmp_path / "trainings").mkdir()
    result = evaluate_once(made, images, setting, 0, tmp_path / "trainings")
    kept = tree(tmp_path / "trainings")
    for seed in range(10):
        flip_bit(file, seed)
        assert teacher.soft_labels(training_images(made, None), file).equal(expected)
        flip_bit(tmp_path / "trainings" / next(iter(kept)), seed)
        assert evaluate_once(made, images, setting, 0, tmp_path / "trainings") == result
        shutil.rmtree(tmp_path / "trainings")
        (tmp_path / "trainings").mkdir()
        (tmp_path / "trainings" / next(iter(kept))).write_bytes(kept[next(iter(kept))])


def test_every_file_of_what_is_finished(image_folder: MakeFolder, teacher: Teacher, tmp_path: Path) -> None:
    """A set, a prior, a teacher: whichever file it is in, loading refuses and names it."""
    random_real(load_images(image_folder({"ant": 5, "bee": 5})), tmp_path / "set", ipc=2, image_size=8)
    with StagedFolder(tmp_path / "prior", {"kind": "prior"}) as stage:
        untrained_prior(("ant", "bee")).save_pretrained(stage.path)
        stage.commit()
    loaders: dict[str, Callable[[Path], object]] = {"set": DistilledSet.load, "prior": Prior.from_pretrained, "teacher": Teacher.load}
    for kind, load in loaders.items():
        load(tmp_path / kind)
        for name, content in tree(tmp_path / kind).items():
            for seed in FLIPS:
                flip_bit(tmp_path / kind / name, seed)
                with pytest.raises(DamagedFile) as caught:
                    load(tmp_path / kind)
                assert name in str(caught.value)
                (tmp_path / kind / name).write_bytes(content)
        load(tmp_path / kind)
