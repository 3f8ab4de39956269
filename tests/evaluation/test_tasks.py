"""Trainings give the same results in whichever process, and in whichever order, they run."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import Prior, evaluate, load_images, random_real
from d3hr.comparison.matrix import Matrix, MatrixRow
from d3hr.comparison.run import compare
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.data.dataset import ImageData
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import Evaluation
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import seeded_student
from d3hr.execution.base import SERIAL, Execution
from d3hr.execution.processes import WorkerProcesses
from d3hr.execution.ray import RayCluster
from d3hr.methods.job import MethodInputs
from d3hr.sets.distilled_set import DistilledSet
from tests.conftest import MakeFolder, tree, untrained_prior
from tests.execution.works import Elsewhere

HARD = Protocol(name="hard", steps=3, checks=2, batch_size=4, learning_rate=0.05, shift=0.1, mix="cutmix")
STORED = HARD.model_copy(update={"name": "stored", "labels": "stored", "temperature": 4.0})
ONLINE = STORED.model_copy(update={"name": "online", "labels": "online"})
SETS = 2


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def test_images(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder({"ant": 9, "bee": 7}, name="test"))


@pytest.fixture
def entries(image_folder: MakeFolder, tmp_path: Path) -> list[Entry]:
    """Two sets of one method, of which the seeds differ."""
    images = load_images(image_folder({"ant": 8, "bee": 8}))
    made = [random_real(images, tmp_path / f"set{seed}", ipc=3, image_size=8, seed=seed) for seed in range(SETS)]
    return [Entry(one, [2 * place, 2 * place + 1]) for place, one in enumerate(made)]


@pytest.fixture
def settings(tmp_path: Path) -> list[Setting]:
    """Every kind of labels."""
    teacher = Teacher(seeded_student("convnet1", 2, 8, 5).eval(), "convnet1", ("bee", "ant"), 8, {})
    return [Setting("convnet1", HARD), Setting("convnet1", STORED, teacher), Setting("convnet1", ONLINE, teacher)]


@pytest.mark.parametrize(
    "execution",
    [Elsewhere(), pytest.param(WorkerProcesses(2), marks=pytest.mark.slow), pytest.param(RayCluster("local", 2), marks=pytest.mark.slow)],
    ids=["pickled", "processes", "ray"],
)
@pytest.mark.usefixtures("one_thread")
def test_a_comparison_is_the_same_anywhere(
    entries: list[Entry], settings: list[Setting], test_images: ImageData, tmp_path: Path, execution: Execution
) -> None:
    """To the last digit, and to the last byte of what is kept of each training."""
    if isinstance(execution, RayCluster):
        pytest.importorskip("ray")
    here = compare_entries(entries, test_images, settings, folder=tmp_path / "here")
    there = compare_entries(entries, test_images, settings, folder=tmp_path / "there", execution=execution)
    assert here == there
    assert [(row.protocol.name, len(row.runs)) for row in here] == [(name, 2 * SETS) for name in ("hard", "stored", "online")]
    assert tree(tmp_path / "here") == tree(tmp_path / "there")
    assert len({run.hits for row in here for run in row.runs}) > 1  # there is something to confuse


@pytest.mark.usefixtures("one_thread")
def test_an_evaluation_is_the_same_anywhere(entries: list[Entry], test_images: ImageData) -> None:
    distilled, arguments = entries[0].distilled, {"student": "convnet1", "protocol": HARD, "seeds": (3, 1, 2)}
    here = evaluate(distilled, test_images, **arguments)  # type: ignore[arg-type]
    assert [run.training_seed for run in here.runs] == [3, 1, 2]
    assert evaluate(distilled, test_images, execution=Elsewhere(), **arguments) == here  # type: ignore[arg-type]


def test_what_is_trained_is_kept_when_it_ends(entries: list[Entry], test_images: ImageData, tmp_path: Path) -> None:
    """A run that is stopped after three trainings of four makes the fourth when it is repeated, and touches no other."""
    setting, folder = Setting("convnet1", HARD), tmp_path / "trainings"
    with pytest.raises(KeyboardInterrupt):
        compare_entries(entries, test_images, [setting], folder=folder, execution=Elsewhere(most=3))
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(stamps) == 3
    again = compare_entries(entries, test_images, [setting], folder=folder)
    assert again == compare_entries(entries, test_images, [setting], folder=tmp_path / "at once")
    assert len(list(folder.iterdir())) == 4 and {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_trainings_that_are_one_are_done_once(entries: list[Entry], test_images: ImageData, tmp_path: Path) -> None:
    """Two rows of the same set and seeds share their trainings."""
    first, second = (replace(entries[0], name=name) for name in ("first", "second"))
    rows = compare_entries([first, second], test_images, [Setting("convnet1", HARD)], folder=tmp_path / "trainings")
    assert [(row.name, row.runs) for row in rows] == [("first", rows[0].runs), ("second", rows[0].runs)]
    assert len(list((tmp_path / "trainings").iterdir())) == 2


def compared(images: ImageData, test: ImageData, folder: Path, prior: Path, execution: Execution) -> list[Evaluation]:
    quick = {"steps": 4, "level": 2, "num_candidates": 20}
    matrix = Matrix(
        methods=(MatrixRow(method="d3hr", settings=quick), MatrixRow(method="chosen"), MatrixRow(method="prior_only")),
        ipc=(1, 2),
        distillation_seeds=(0, 1),
        students=("convnet1",),
        protocols=(str(folder.parent / "brief.yaml"),),
    )
    inputs = MethodInputs(images, 8, prior=Prior.from_pretrained(prior))
    return list(compare(matrix, inputs, test, folder, execution=execution).rows)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_whole_comparison_is_the_same_anywhere(image_folder: MakeFolder, test_images: ImageData, tmp_path: Path) -> None:
    """Sets are made, and students trained, where the execution says."""
    (tmp_path / "brief.yaml").write_text("base: quick\nsteps: 2\nchecks: 1\n")
    untrained_prior(("ant", "bee")).save_pretrained(tmp_path / "prior")
    images = load_images(image_folder({"ant": 8, "bee": 8}))
    here = compared(images, test_images, tmp_path / "here", tmp_path / "prior", SERIAL)
    assert compared(images, test_images, tmp_path / "there", tmp_path / "prior", Elsewhere()) == here
    assert tree(tmp_path / "here") == tree(tmp_path / "there")


def test_a_set_travels_without_what_was_read_of_it(entries: list[Entry]) -> None:
    distilled: Any = entries[0].distilled
    assert isinstance(distilled, DistilledSet) and len(distilled.images) == 6
    sent = pickle.loads(pickle.dumps(distilled))
    assert "images" not in vars(sent) and torch.equal(sent.images, distilled.images)
