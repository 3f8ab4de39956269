"""Whole diagnoses: of a fair set, a bad one, a small one, and through the command."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import d3hr
from d3hr import DistilledSet, ImageData, Prior, load_images, random_real
from d3hr.__main__ import main
from d3hr.comparison.run import compare_with_baselines
from d3hr.comparison.trainings import Setting
from d3hr.data.codec import to_uint8
from d3hr.diagnostics.checks import transfer
from d3hr.diagnostics.spaces import feature_space
from d3hr.errors import ClassMismatch, OutputError, SettingsError
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.results import ResultRow
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL
from d3hr.fileio.atomic import read_json
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from d3hr.sets.image_set import pictures_of
from tests.conftest import MakeFolder, tree, untrained_prior
from tests.execution.works import Elsewhere

KEYS = "set data space normality distances coverage diversity labels copying round_trip interpolation per_class embedding verdicts notes"


def _statuses(values: dict[str, Any]) -> dict[str, str]:
    return {verdict["signature"]: verdict["status"] for verdict in values["verdicts"]}


@pytest.fixture(scope="module")
def fair(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> DistilledSet:
    return random_real(digits, tmp_path_factory.mktemp("fair") / "set", ipc=10, image_size=8)


@pytest.mark.slow
def test_random_real_images_are_judged_ok_and_seen_to_be_copies(digits: ImageData, fair: DistilledSet) -> None:
    """Each is its own nearest real image, at no distance; everything else is as the reference."""
    found = d3hr.diagnose(fair, digits)
    values = found.as_values()
    assert list(values) == KEYS.split()
    assert set(_statuses(values).values()) == {"ok"}
    assert values["copying"]["share_copied"] == 1.0
    assert values["copying"]["ratio_median"] == pytest.approx(0, abs=1e-3)
    assert values["normality"] is None and values["round_trip"] is None
    first = digits.class_names[0]
    nearest = digits.gather(found.nearest[fair.manifest.classes[0].folder].tolist())[0]
    assert torch.equal(((nearest + 1) * 127.5).round().to(torch.uint8), fair.of_class(first))
    assert "[ok] loss of diversity" in found.as_text()


@pytest.mark.slow
def test_a_folder_of_uneven_classes_has_one_ipc(image_folder: MakeFolder, tmp_path: Path) -> None:
    """3, 3 and 2 images are IPC 2 in its row, in that of random real images and in the diagnosis, so that its check finds them."""
    images = load_images(image_folder({"ant": 6, "bee": 6, "cat": 6}))
    uneven = load_images(image_folder({"ant": 3, "bee": 3, "cat": 2}, name="set"))
    brief, rows = protocol_named("quick").model_copy(update={"steps": 1, "checks": 1}), list[ResultRow]()
    for student in ("convnet1", "convnet2"):
        setting = Setting(student, brief)
        comparison = compare_with_baselines(uneven, images, tmp_path / "out", setting, real=images, prior=None, seeds=(0,))
        rows += [row.row() for row in comparison.rows]
    assert [(row.method, row.ipc) for row in rows] == [("folder", 2), ("random_real", 2)] * 2
    found = d3hr.diagnose(uneven, images, rows=rows)
    assert found.set.ipc == 2
    assert _statuses(found.as_values())["poor transfer to other architectures"] != "unknown"


def test_a_saved_diagnosis_is_read_back(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Figures, verdicts and text are the same; a second save changes nothing; results of evaluations change one verdict and no figure."""
    images = load_images(image_folder({"ant": 8, "bee": 8}))
    small = load_images(image_folder({"ant": 2, "bee": 2}, name="set"))
    diagnosis = d3hr.diagnose(small, images)
    diagnosis.save(tmp_path / "out")
    before = tree(tmp_path / "out")
    diagnosis.save(tmp_path / "out")
    assert tree(tmp_path / "out") == before
    kept = d3hr.Diagnosis.read(tmp_path / "out")
    assert kept.as_values() == diagnosis.as_values() and kept.as_text() == diagnosis.as_text()
    row = {"method": "folder", "ipc": 2, "protocol": "quick", "labels": "hard", "accuracy_mean": 0.5, "accuracy_std": 0.0, "seeds": 1}
    rows = [ResultRow.model_validate({**row, "student": student}) for student in ("convnet3", "resnet18")]
    changed = kept.with_evaluations(rows).as_values()
    assert changed["verdicts"][0]["evidence"] == "students: convnet3, resnet18"
    assert {**changed, "verdicts": []} == {**kept.as_values(), "verdicts": []}


@pytest.mark.slow
def test_one_repeated_image_fails_in_diversity(digits: ImageData, tmp_path: Path) -> None:
    """Five copies of a class's first image: no distance between them, one of five places covered; and each is a copy."""
    for position, name in zip(np.cumsum([0, *digits.counts.values()]), digits.class_names, strict=False):
        pixels = ((digits[int(position)][0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{index}.png")
    values = d3hr.diagnose(load_images(tmp_path / "set", keep_duplicates=True), digits).as_values()
    assert _statuses(values)["loss of diversity"] == "failure"
    assert values["diversity"]["distilled"] == 0.0
    assert values["set"] == {"path": str(tmp_path / "set"), "method": "folder", "ipc": 5}


def test_a_packed_set_is_compared_image_by_image(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Its eight images a class are real ones at half the side: copies, all of them, at the places drawn; text and figures say that it is
    packed, and results of sets that are not are no second student."""
    images = load_images(image_folder({"ant": 16, "bee": 16}, size=16))
    packed = METHODS["random_real"].make(MethodInputs(images, 16), tmp_path / "set", ipc=2, shared=tmp_path / "shared", pack=2)
    found = d3hr.diagnose(packed, images)
    assert found.copying is not None and found.copying.share_copied == 1.0
    nearest = images.at_size(8).gather(found.nearest["bee"].tolist())[0]
    assert torch.equal(to_uint8(nearest), pictures_of(packed).of_class("bee"))
    assert "IPC 2, packed 2x2, 4 images per stored image" in found.as_text()
    assert found.as_values()["set"]["pack"] == 2
    kept = {"ipc": 2, "protocol": "quick", "labels": "hard", "accuracy_mean": 0.5, "accuracy_std": 0.0, "seeds": 1, "method": "folder"}
    rows = [ResultRow.model_validate({**kept, "student": student, "pack": pack}) for student, pack in (("convnet1", 1), ("convnet2", 2))]
    assert transfer(rows, "folder", 2, 2).evidence == "students: convnet2"


@pytest.mark.slow
def test_noise_drifts(digits: ImageData, image_folder: MakeFolder) -> None:
    """Random pixels lie far from the digits and near none of them."""
    values = d3hr.diagnose(load_images(image_folder(dict.fromkeys(digits.class_names, 5))), digits).as_values()
    assert _statuses(values)["distribution drift"] == "failure"
    assert values["coverage"]["precision"] == 0.0
    assert values["copying"]["share_copied"] == 0.0


def test_one_image_a_class_leaves_gaps_and_no_nan(image_folder: MakeFolder) -> None:
    """IPC 1 has no distance within a class and no recall; too few real images give no reference. All is valid JSON."""
    images = load_images(image_folder({"ant": 3, "bee": 1}))
    small = load_images(image_folder({"ant": 1, "bee": 1}, name="set"))
    values = d3hr.diagnose(small, images).as_values()
    assert d3hr.diagnose(small, images).as_values() == values
    json.dumps(values, allow_nan=False)
    assert values["diversity"]["distilled"] is None and values["per_class"]["ant"]["recall"] is None
    assert values["per_class"]["bee"]["nearest_ratio"] is None
    assert values["coverage"]["reference"] == dict.fromkeys(("precision", "recall", "density", "coverage"))
    assert _statuses(values)["loss of diversity"] == "unknown"
    assert any("no reference" in note for note in values["notes"])


@pytest.mark.slow
def test_spaces(digits: ImageData, digits_prior: Prior) -> None:
    """Pixels up to 32 a side; latents of 4 x 4 x 4; a teacher's features, which come first where there are several."""
    images = digits.gather(range(3))[0]
    network = new_student("convnet1", 10, 8).eval()
    teacher = Teacher(network, "convnet1", digits.class_names, 8, {})
    assert feature_space().points(images).shape == (3, 3 * 8 * 8)
    assert feature_space().points(torch.zeros(2, 3, 64, 64)).shape == (2, 3 * 32 * 32)
    assert feature_space(prior=digits_prior).points(images).shape == (3, 64)
    both = feature_space(prior=digits_prior, teacher=teacher)
    assert both.name == "teacher" and np.allclose(both.points(images), network.embed(images).detach().numpy(), atol=1e-6)
    assert feature_space("pixel", prior=digits_prior).name == "pixel"
    for space in (feature_space(), feature_space(prior=digits_prior), both):
        assert np.array_equal(pickle.loads(pickle.dumps(space)).points(images), space.points(images))
    for missing in ("latent", "teacher"):
        with pytest.raises(SettingsError, match="needs a"):
            feature_space(missing)


@pytest.mark.slow
def test_a_diagnosis_is_the_same_anywhere(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Where every class is sent to another process, the last one first; every figure and nearest image is the same."""
    names = ("ant", "bee", "cat")
    untrained_prior(names).save_pretrained(tmp_path / "prior")
    images, prior = load_images(image_folder(dict.fromkeys(names, 14))), Prior.from_pretrained(tmp_path / "prior")
    chosen = random_real(images, tmp_path / "set", ipc=2, image_size=8)
    teacher = Teacher(new_student("convnet1", 3, 8).eval(), "convnet1", names, 8, {})
    elsewhere = Elsewhere()
    for name, execution in (("here", SERIAL), ("there", elsewhere)):
        d3hr.diagnose(chosen, images, prior, teacher=teacher, levels=2, execution=execution).save(tmp_path / name)
    assert tree(tmp_path / "here") == tree(tmp_path / "there")
    assert elsewhere.works == ["ClassSampler", "LevelTests", "GateSampler", "Interpolating"]


def test_other_classes_are_refused(image_folder: MakeFolder) -> None:
    with pytest.raises(ClassMismatch, match="bee"):
        d3hr.diagnose(load_images(image_folder({"ant": 1, "bee": 1}, name="set")), load_images(image_folder({"ant": 3, "cat": 3})))


@pytest.mark.slow
def test_the_command_end_to_end(
    digits: ImageData, digits_prior: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data and prior come from the manifest; the same command again leaves every byte; another seed asks for another folder."""
    assert digits_prior.source is not None
    monkeypatch.chdir(tmp_path)
    d3hr.distill(digits, digits_prior, "set", ipc=2, steps=4, level=2, num_candidates=10)
    (tmp_path / "set-evaluation").mkdir()
    row = {"ipc": 2, "protocol": "quick", "labels": "hard", "accuracy_std": 0.01, "seeds": 2}
    accuracies = {("d3hr", "convnet3"): 0.9, ("d3hr", "resnet18"): 0.5, ("random_real", "convnet3"): 0.9, ("random_real", "resnet18"): 0.9}
    rows = [{**row, "method": method, "student": student, "accuracy_mean": mean} for (method, student), mean in accuracies.items()]
    (tmp_path / "set-evaluation" / "results.json").write_text(json.dumps(rows))
    assert main(["diagnose", "set", "--levels", "3", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values == {"out": "set-diagnosis", **read_json(tmp_path / "set-diagnosis" / "diagnosis.json")}
    assert values["space"] == "latent" and values["data"]["source"] == "digits"
    assert [row["level"] for row in values["normality"]["levels"]] == [0, 2, 3]
    assert values["round_trip"]["images"] == 64
    assert _statuses(values)["poor transfer to other architectures"] == "failure"
    assert _statuses(values)["infeasible cost"] == "ok"
    assert {point["kind"] for point in values["embedding"]["points"]} == {"real", "distilled"}
    pictures = sorted(str(file.relative_to(tmp_path / "set" / "train")) for file in (tmp_path / "set" / "train").rglob("*.png"))
    nearest = tmp_path / "set-diagnosis" / "nearest"
    assert sorted(str(file.relative_to(nearest)) for file in nearest.rglob("*.png")) == pictures
    before = tree(tmp_path / "set-diagnosis")
    assert main(["diagnose", "set", "--levels", "3", "--json"]) == 0
    assert tree(tmp_path / "set-diagnosis") == before
    assert main(["diagnose", "set", "--levels", "3"]) == 0
    assert "[failure] poor transfer" in capsys.readouterr().out
    with pytest.raises(OutputError):
        main(["diagnose", "set", "--levels", "3", "--seed", "1", "--debug"])


def test_the_command_asks_for_real_images_it_cannot_know(image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(image_folder({"ant": 1, "bee": 1}))]) == 2
    assert "--data" in capsys.readouterr().err


def test_the_command_reads_several_evaluations_and_does_without_a_lost_prior(
    image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row a folder makes two students, which lack random real rows; a folder without results is an error, and so is a named prior that
    is not there."""
    monkeypatch.chdir(tmp_path)
    images = load_images(image_folder({"ant": 6, "bee": 6}))
    random_real(images, "set", ipc=1, image_size=8)
    (tmp_path / "set" / "SHA256SUMS").unlink()
    manifest = read_json(tmp_path / "set" / "manifest.json")
    manifest |= {"method": "other", "prior": {"source": str(tmp_path / "gone")}}
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest))
    row = {"method": "other", "ipc": 1, "protocol": "quick", "labels": "hard", "accuracy_mean": 0.5, "accuracy_std": 0.0, "seeds": 1}
    for student in ("convnet3", "resnet18"):
        (tmp_path / student).mkdir()
        (tmp_path / student / "results.json").write_text(json.dumps([{**row, "student": student}]))
    assert main(["diagnose", "set", "--evaluation", "[convnet3, resnet18]", "--out", "both", "--json"]) == 0
    output = capsys.readouterr()
    assert "left out" in output.err
    values = json.loads(output.out)
    assert values["space"] == "pixel"
    assert values["verdicts"][0]["evidence"] == "students: convnet3, resnet18"
    figures = {name: value for name, value in values.items() if name not in ("verdicts", "out")}
    assert main(["diagnose", "set", "--evaluation", "convnet3", "--out", "both", "--json"]) == 0
    fewer = json.loads(capsys.readouterr().out)
    assert fewer["verdicts"][0]["evidence"] == "students: convnet3"
    assert {name: value for name, value in fewer.items() if name not in ("verdicts", "out")} == figures
    assert main(["diagnose", "set", "--evaluation", "convnet3", "--out", "one"]) == 0
    assert "students: convnet3\n" in capsys.readouterr().out
    assert main(["diagnose", "set", "--evaluation", "images"]) == 2
    assert "There is no images/results.json" in capsys.readouterr().err
    assert main(["diagnose", "set", "--prior", str(tmp_path / "gone")]) == 2
