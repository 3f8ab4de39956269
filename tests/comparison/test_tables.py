import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from d3hr import DistilledSet, ImageData, Prior, distill, load_images, prior_only, random_real
from d3hr.comparison.run import compare_with_baselines, side_of_real
from d3hr.comparison.statistics import label_robust_score, ranking
from d3hr.comparison.tables import Comparison, accuracy_table
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import Evaluation, TrainingResult
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import seeded_student
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from d3hr.progress import SILENT
from d3hr.report.report import own_row
from tests.conftest import MakeFolder

SHORT = Protocol(name="short", steps=6, checks=2, batch_size=64, learning_rate=0.05)
SOFT = SHORT.model_copy(update={"name": "soft", "labels": "online", "temperature": 4.0})


@pytest.fixture
def distilled(digits: ImageData, digits_prior: Prior, tmp_path: Path) -> DistilledSet:
    few = load_images("digits", split="validation")
    return distill(few, digits_prior, tmp_path / "set", ipc=2, preset="gentle", steps=4, statistics_level=2, denoising_level=2)


def row(
    method: str, *accuracies: float, protocol: Protocol = SHORT, student: str = "convnet3", name: str | None = None, pack: int = 1
) -> Evaluation:
    return Evaluation(method, 10, student, protocol, tuple(TrainingResult(value, value) for value in accuracies), name=name, pack=pack)


@pytest.mark.slow
def test_baselines_stand_beside_the_set(distilled: DistilledSet, digits: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    """Three rows of the same IPC and number of runs; a second call finds every training and makes none."""
    test = load_images("digits", split="validation")
    arguments: dict[str, Any] = {"real": digits, "prior": digits_prior, "seeds": (0, 1)}
    comparison = compare_with_baselines(distilled, test, tmp_path / "out", Setting("convnet3", SHORT), **arguments)
    rows = comparison.rows
    assert [(row.method, row.ipc, len(row.runs)) for row in rows] == [("d3hr", 2, 2), ("random_real", 2, 2), ("prior_only", 2, 2)]
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["accuracy_mean"] for row in kept] == [pytest.approx(row.accuracy_mean, abs=1e-6) for row in rows]
    assert kept[0]["ior"] == pytest.approx(rows[0].accuracy_mean - rows[1].accuracy_mean, abs=1e-6)
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["d3hr", "random_real", "prior_only"]
    assert len(list((tmp_path / "out" / "trainings").iterdir())) == 6
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "trainings").iterdir()}
    assert compare_with_baselines(distilled, test, tmp_path / "out", Setting("convnet3", SHORT), **arguments) == comparison
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "trainings").iterdir()} == stamps


def test_a_training_of_other_settings_is_not_used(distilled: DistilledSet, tmp_path: Path) -> None:
    test = load_images("digits", split="validation")
    for steps in (6, 7):
        setting = Setting("convnet1", SHORT.model_copy(update={"steps": steps}))
        compare_entries([Entry(distilled, [0])], test, [setting], folder=tmp_path / "trainings")
    assert len(list((tmp_path / "trainings").iterdir())) == 2


def test_verdicts_name_winner_and_doubt() -> None:
    """80 +- 0 against 75 +- 0 wins by 5 points; 80 against 82 +- 2.8 loses by 2, which is within the spread."""
    rows = [row("d3hr", 0.8, 0.8), row("random_real", 0.84, 0.8), row("prior_only", 0.75, 0.75)]
    assert Comparison(rows).summary() == [
        "IPC 10: distilled loses against random real images by 2.0 points, within the spread of the seeds.",
        "IPC 10: distilled wins against images drawn from the prior alone by 5.0 points.",
    ]
    assert "80.0 ± 0.0" in accuracy_table(rows)


def test_packed_rows_are_a_class_of_their_own() -> None:
    """They have a table that says so, figures and sentences from packed rows alone: 70 is 10 above packed random real images, not 20."""
    rows = [row("d3hr", 0.55), row("random_real", 0.5), row("d3hr", 0.7, pack=2), row("random_real", 0.6, pack=2)]
    plain, packed = accuracy_table(rows).split("\n" + "convnet3, hard labels, protocol short, packed 2x2, 4 images per stored image")
    assert ("70.0" in packed, "70.0" in plain, "55.0" in packed, "55.0" in plain) == (True, False, False, True)
    comparison = Comparison(rows, {"convnet3": 0.9})
    assert comparison.summary() == [
        "IPC 10: distilled wins against random real images by 5.0 points.",
        "IPC 10, packed 2x2: distilled wins against random real images by 10.0 points.",
    ]
    assert [entry.ior for entry in comparison.ranked()] == [pytest.approx(0.05), None, pytest.approx(0.1), None]
    assert ranking(row("d3hr", 0.7, pack=2), rows[:2], {}).ior is None
    assert len({str(entry.identity) for entry in comparison.ranked()}) == 4


def test_a_packed_set_is_compared_with_packed_random_images(image_folder: MakeFolder, tmp_path: Path) -> None:
    """As many real images, packed alike at the set's own side, whatever side students see; where a class has too few, there is no row."""
    images = load_images(image_folder({"ant": 8, "bee": 8}, size=16))
    make = METHODS["random_real"].make
    made = make(MethodInputs(images, 16), tmp_path / "set", ipc=2, seed=5, shared=tmp_path / "shared", pack=2)
    brief = SHORT.model_copy(update={"steps": 2})
    comparison = compare_with_baselines(
        made, images, tmp_path / "out", Setting("convnet1", brief, image_size=12), real=images, prior=None, seeds=(0,)
    )
    assert [(entry.name, entry.pack, entry.ipc) for entry in comparison.rows] == [(None, 2, 2), ("random_real, the set", 2, 2)]
    (baseline,) = (tmp_path / "out" / "baselines").glob("random_real*")
    assert (DistilledSet.load(baseline).image_size, DistilledSet.load(baseline).pack) == (16, 2)
    assert [entry["pack"] for entry in json.loads((tmp_path / "out" / "results.json").read_text())] == [2, 2]
    few = load_images(image_folder({"ant": 8, "bee": 7}, size=16, name="few"))
    alone = compare_with_baselines(
        made, images, tmp_path / "other", Setting("convnet1", brief), real=few, prior=None, seeds=(0,), progress=SILENT
    )
    assert len(alone.rows) == 1


def test_trainings_at_two_sides_are_kept_apart(digits: ImageData, tmp_path: Path) -> None:
    """The default and a side are two trainings; a side of the set's own gives the default's figures."""
    made = random_real(digits, tmp_path / "set", ipc=1, image_size=8)
    brief, test = SHORT.model_copy(update={"steps": 2}), load_images("digits", split="validation")
    rows = [
        compare_entries([Entry(made, [0])], test, [Setting("convnet1", brief, image_size=size)], folder=tmp_path / "trainings")
        for size in (None, 8, 4)
    ]
    assert len(list((tmp_path / "trainings").iterdir())) == 3
    assert rows[0][0].runs == rows[1][0].runs
    assert [row[0].as_row()["image_size"] for row in rows] == [None, 8, 4]


def test_the_score_of_dd_ranking_by_hand() -> None:
    """a = (IOR - HLR) / 2: at a = 0 the score is (1 - 1/e) / (e - 1/e) = 0.268941, at a = -1 it is 0, at a = 1 it is 1."""
    assert label_robust_score(0.2, 0.2) == pytest.approx((1 - 1 / math.e) / (math.e - 1 / math.e))
    assert label_robust_score(-1, 1) == pytest.approx(0)
    assert label_robust_score(1, -1) == pytest.approx(1)
    assert label_robust_score(0.3, 0.1, weight=1) == pytest.approx((math.exp(0.3) - math.exp(-1)) / (math.e - math.exp(-1)))


def test_a_row_is_ranked_against_its_like() -> None:
    """With soft labels 0.7 against random real's 0.6: IOR 0.1. The same set with hard labels 0.5, full data 0.9: HLR 0.4, a = -0.15."""
    rows = [row("d3hr", 0.7, protocol=SOFT), row("random_real", 0.6, protocol=SOFT), row("d3hr", 0.5), row("random_real", 0.55)]
    found = ranking(rows[0], rows, {"convnet3": 0.9})
    assert (found.ior, found.hlr) == pytest.approx((0.1, 0.4))
    assert found.lrs == pytest.approx((math.exp(-0.15) - math.exp(-1)) / (math.e - math.exp(-1)))
    hard = ranking(rows[2], rows, {"convnet3": 0.9})
    assert (hard.ior, hard.hlr) == pytest.approx((-0.05, 0.4))
    lone = ranking(rows[0], rows[:1], {"resnet18": 0.9})
    assert (lone.ior, lone.hlr, lone.lrs) == (None, None, None)
    assert ranking(rows[3], rows, {"convnet3": 0.9}).ior is None
    assert Comparison(rows).ranked()[0].ior == 0.1


def test_a_soft_row_takes_the_hard_protocol_that_is_its_partner() -> None:
    """Of two hard protocols the one that trains alike counts, in whatever order; where neither does, or both do, there is no HLR."""
    soft = row("d3hr", 0.7, protocol=SOFT)
    other, alike = (row("d3hr", value, protocol=SHORT.model_copy(update=update)) for value, update in [(0.3, {"steps": 9}), (0.5, {})])
    for rows in ([soft, other, alike], [soft, alike, other]):
        assert ranking(soft, rows, {"convnet3": 0.9}).hlr == pytest.approx(0.4)
    assert ranking(soft, [soft, other], {"convnet3": 0.9}).hlr == pytest.approx(0.6)
    longer = row("d3hr", 0.4, protocol=SHORT.model_copy(update={"name": "longer", "steps": 12}))
    assert ranking(soft, [soft, other, longer], {"convnet3": 0.9}).hlr is None
    smooth = row("d3hr", 0.4, protocol=SHORT.model_copy(update={"name": "smooth", "label_smoothing": 0.1}))
    assert ranking(soft, [soft, alike, smooth], {"convnet3": 0.9}).hlr is None


def test_hard_and_soft_labels_never_share_a_table() -> None:
    text = accuracy_table([row("d3hr", 0.7, protocol=SOFT), row("d3hr", 0.5)], {"convnet3": 0.9})
    hard, soft = sorted(text.split("convnet3, ")[1:])
    assert hard.startswith("hard labels, protocol short") and "50.0" in hard and "70.0" not in hard
    assert soft.startswith("soft labels, protocol soft") and "70.0" in soft
    assert "HLR" in hard and "IOR" not in hard


def test_sentences_tell_settings_apart_where_there_are_several() -> None:
    rows = [
        row(method, 0.8, student=student, name=name)
        for student in ("convnet3", "resnet18")
        for method, name in [("d3hr", "exact"), ("random_real", None)]
    ]
    assert Comparison(rows).summary()[1].startswith("IPC 10, resnet18, short: exact loses against random real images by 0.0 points")


def test_a_folder_of_another_tool_stands_beside_random_real_images(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Six images of two classes, IPC 3: rows of the folder and of random real images; without a prior no row of it."""
    folder, real = load_images(image_folder({"a": 3, "b": 3})), load_images(image_folder({"a": 4, "b": 5}, name="real"))
    comparison = compare_with_baselines(folder, real, tmp_path / "out", Setting("convnet1", SHORT), real=real, prior=None, seeds=(0,))
    assert [(row.method, row.ipc) for row in comparison.rows] == [("folder", 3), ("random_real", 3)]
    assert "the folder" in comparison.summary()[0]


@pytest.mark.parametrize("side", [8, 16])
def test_random_real_images_are_resized_once(image_folder: MakeFolder, tmp_path: Path, side: int) -> None:
    """Students at 8 px, a set at 16: the row of real images is that of a set at 8, pixel by pixel; its folder says so."""
    real = load_images(image_folder({"a": 4, "b": 4}, size=12))
    subject = load_images(image_folder({"a": 1, "b": 1}, size=side, name="set"))
    setting = Setting("convnet1", SHORT.model_copy(update={"steps": 1}), image_size=8)
    compare_with_baselines(subject, real, tmp_path / "out", setting, real=real, prior=None, seeds=(0, 1))
    for seed in (0, 1):
        alone = random_real(real, tmp_path / f"alone{seed}", ipc=1, image_size=8, seed=seed)
        baseline = DistilledSet.load(tmp_path / "out" / "baselines" / f"random_real-ipc1{'-8px' if side == 16 else ''}-seed{seed}")
        assert baseline.images.equal(alone.images)


@pytest.mark.parametrize(("own", "expected"), [(8, 8), (12, 12), (40, 16)])
def test_crops_of_real_images_are_as_sharp_as_those_of_the_set(image_folder: MakeFolder, own: int, expected: int) -> None:
    """Students of 8 px and sets of 16: real images of 8 px stay as they are, those of 12 and 40 keep what a set of 16 can hold."""
    images = load_images(image_folder({"a": 1, "b": 1}, size=own))
    cropping = SHORT.model_copy(update={"crop_scale": (0.5, 1.0), "crop_stored": True})
    assert side_of_real(images, 8, 16, [SHORT, cropping]) == expected
    assert side_of_real(images, 8, 16, [SHORT]) == 8
    assert side_of_real(images, 24, 16, [cropping]) == 24


@pytest.mark.slow
def test_the_prior_draws_on_the_grid_of_the_set(distilled: DistilledSet, digits_prior: Prior, tmp_path: Path) -> None:
    """The set has 4 steps and guidance 1; so do the images of its prior, whose folder names the steps. A set of that kind keeps its own."""
    test, setting = load_images("digits", split="validation"), Setting("convnet1", SHORT.model_copy(update={"steps": 1}))
    arguments: dict[str, Any] = {"real": None, "prior": digits_prior, "seeds": (3,)}
    compare_with_baselines(distilled, test, tmp_path / "out", setting, **arguments)
    drawn = DistilledSet.load(tmp_path / "out" / "baselines" / "prior_only-ipc2-4steps-seed3")
    assert drawn.manifest.settings == {"seed": 3, "steps": 4, "guidance_scale": 1.0}
    strong = prior_only(digits_prior, digits_prior.class_names, tmp_path / "strong", ipc=1, steps=4, guidance_scale=3.0)
    comparison = compare_with_baselines(strong, test, tmp_path / "of strong", setting, **arguments)
    assert [(row.method, row.name, len(row.runs)) for row in comparison.rows] == [
        ("prior_only", None, 1), ("prior_only", "prior_only, the set", 1),
    ]  # fmt: skip
    own = own_row(strong, [row.row() for row in comparison.rows])
    assert own is not None and own.name == "prior_only, the set"
    again = DistilledSet.load(tmp_path / "of strong" / "baselines" / "prior_only-ipc1-4steps-seed3")
    assert again.manifest.settings["guidance_scale"] == 3.0


def test_answers_of_another_teacher_are_not_used(digits: ImageData, tmp_path: Path) -> None:
    """Two teachers of other weights: a training and a file of soft labels each, and with hard labels one training whatever the teacher."""
    made, test = random_real(digits, tmp_path / "set", ipc=1, image_size=8), load_images("digits", split="validation")
    stored = SOFT.model_copy(update={"labels": "stored", "steps": 2})
    for seed in (0, 1):
        teacher = Teacher(seeded_student("convnet1", 10, 8, seed).eval(), "convnet1", digits.class_names, 8, {})
        for protocol in (stored, SHORT.model_copy(update={"steps": 2})):
            compare_entries([Entry(made, [0])], test, [Setting("convnet1", protocol, teacher)], folder=tmp_path / "trainings")
    assert len(list((tmp_path / "trainings").glob("convnet1-soft-*.json"))) == 2
    assert len(list((tmp_path / "trainings").glob("soft-labels-*.safetensors"))) == 2
    assert len(list((tmp_path / "trainings").glob("convnet1-short-*.json"))) == 1
