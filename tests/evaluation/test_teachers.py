import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from d3hr import ImageData, evaluate, load_images, random_real
from d3hr.__main__ import main
from d3hr.errors import ClassMismatch, DataError, OutputError, ResultsError, SettingsError
from d3hr.evaluation.evaluate import describe_teacher
from d3hr.evaluation.images import LabelledImages, real_images, training_images
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.evaluation.teachers import Teacher
from d3hr.progress import Progress
from tests.conftest import MakeFolder, tree

BRIEF = protocol_named("teacher").model_copy(update={"epochs": 3, "flip": False, "shift": 0.0})


@pytest.fixture(scope="module")
def validation() -> ImageData:
    return load_images("digits", split="validation")


@pytest.fixture(scope="module")
def teacher(digits: ImageData, validation: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return train_teacher(digits, tmp_path_factory.mktemp("teacher") / "out", test=validation, student="convnet1", protocol=BRIEF)


@pytest.mark.slow
def test_a_teacher_learns_and_tells_how_well(teacher: Teacher, validation: ImageData) -> None:
    """Three passes over the digits: far above chance; the accuracy in its file is what its loaded network reaches."""
    assert teacher.about["accuracy"] > 0.8
    found = describe_teacher(teacher, real_images(validation, teacher.class_names, 8))
    assert found["accuracy"] == pytest.approx(teacher.about["accuracy"], abs=1e-6)
    assert (teacher.student, teacher.image_size, teacher.class_names) == ("convnet1", 8, tuple("0123456789"))
    assert not teacher.network.training


@pytest.mark.slow
def test_the_order_of_the_test_classes_does_not_matter(teacher: Teacher, validation: ImageData) -> None:
    backwards = tuple(reversed(teacher.class_names))
    found = describe_teacher(teacher, real_images(validation, backwards, 8))
    assert found["accuracy"] == pytest.approx(teacher.about["accuracy"], abs=1e-6)


@pytest.mark.parametrize(
    "text", ["{}", "[", '{"student": "convnet1", "class_names": ["a"], "image_size": 8}', "[" * 9000, '{"image_size": -1}']
)
def test_a_damaged_teacher_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "teacher.json").write_text(text)
    with pytest.raises(ResultsError, match="damaged"):
        Teacher.load(tmp_path)


class Stopped(Exception):
    """Stands for a power cut."""


class StopsAt(Progress):
    def __init__(self, step: int) -> None:
        self.step = step

    def bar(self, title, total):  # type: ignore[no-untyped-def]
        from contextlib import nullcontext

        class Bar:
            def update(bar, completed: int, **_: object) -> None:  # noqa: N805
                if completed >= self.step and title.startswith("training"):
                    raise Stopped

        return nullcontext(Bar())


@pytest.mark.slow
def test_a_stopped_training_ends_with_the_same_bytes(
    validation: ImageData, teacher: Teacher, digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after about half of its 30 steps, with a checkpoint behind it, and started again: weights as of one training in one go."""
    monkeypatch.setattr("d3hr.prior.trainer.CHECKPOINT_SECONDS", -1.0)
    out = tmp_path / "out"
    arguments: dict[str, Any] = {"test": validation, "student": "convnet1", "protocol": BRIEF}
    with pytest.raises(Stopped):
        train_teacher(digits, out, progress=StopsAt(12), **arguments)
    assert (tmp_path / "out.partial" / "checkpoint.safetensors").exists()
    train_teacher(digits, out, **arguments)
    assert (out / "model.safetensors").read_bytes() == (Path(teacher.source or "") / "model.safetensors").read_bytes()
    before = tree(out)
    train_teacher(digits, out, **arguments)
    assert tree(out) == before
    with pytest.raises(OutputError, match="another --out"):
        train_teacher(digits, out, **{**arguments, "seed": 1})


def test_teachers_of_chosen_epochs_are_kept(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a teacher of its own, the last that of the whole training, whose weights do not change by it; after a stop all are the same.

    Eight images in batches of 4 are two steps a pass: stopped after the third of six steps, the first pass is kept, the second is not.
    """
    monkeypatch.setattr("d3hr.prior.trainer.CHECKPOINT_SECONDS", -1.0)
    images = load_images(image_folder({"a": 4, "b": 4}))
    arguments: dict[str, Any] = {"test": images, "student": "convnet1", "protocol": BRIEF.model_copy(update={"batch_size": 4})}
    plain = train_teacher(images, tmp_path / "plain", **arguments)
    whole = train_teacher(images, tmp_path / "whole", at_epochs=(1, 2, 3), **arguments)
    teachers = [Teacher.load(tmp_path / "whole" / "epochs" / str(epoch)) for epoch in (1, 2, 3)]
    assert [path.name for path in sorted((tmp_path / "whole" / "epochs").iterdir())] == ["1", "2", "3"]
    assert plain.fingerprint == whole.fingerprint == teachers[2].fingerprint
    assert len({teacher.fingerprint for teacher in teachers}) == 3
    for epoch, teacher in enumerate(teachers, 1):
        assert teacher.about["epoch"] == epoch
        found = describe_teacher(teacher, real_images(images, images.class_names, 8))["accuracy"]
        assert teacher.about["accuracy"] == pytest.approx(found, abs=1e-6)
    with pytest.raises(Stopped):
        train_teacher(images, tmp_path / "stopped", at_epochs=(3, 2, 1), progress=StopsAt(4), **arguments)
    assert [path.name for path in (tmp_path / "stopped.partial" / "epochs").iterdir()] == ["1"]
    train_teacher(images, tmp_path / "stopped", at_epochs=(3, 2, 1), **arguments)
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")
    for epochs in ((0,), (2, 4)):
        with pytest.raises(SettingsError, match=r"does not have(?s:.*)it has 3"):
            train_teacher(images, tmp_path / "x", at_epochs=epochs, **arguments)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_images_too_many_for_memory_are_read_as_they_are_needed(
    validation: ImageData, teacher: Teacher, digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes decoded batch by batch give the weights that bytes in memory give."""
    monkeypatch.setattr("d3hr.data.decoded.IN_MEMORY", 0)
    streamed = train_teacher(digits, tmp_path / "out", test=validation, student="convnet1", protocol=BRIEF)
    assert streamed.fingerprint == teacher.fingerprint


def test_a_teacher_of_other_classes_is_refused_with_both_lists(teacher: Teacher, image_folder: MakeFolder) -> None:
    colours = load_images(image_folder({"red": 2, "blue": 2}))
    with pytest.raises(ClassMismatch, match=r"blue, red.*0, 1, 2"):
        evaluate(colours, colours, protocol=protocol_named("stored", ipc=2, classes=2), teacher=teacher)
    with pytest.raises(ClassMismatch):
        teacher.require_classes("01", "the training set")
    with pytest.raises(SettingsError, match="needs a teacher"):
        evaluate(colours, colours, protocol=protocol_named("stored", ipc=2, classes=2))


def test_what_is_no_teacher_is_refused(teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a teacher"):
        Teacher.load(tmp_path)
    Teacher(new_student("convnet2", 10, 8), "convnet1", teacher.class_names, 8, {}).save(tmp_path)
    with pytest.raises(DataError, match="do not fit"):
        Teacher.load(tmp_path)
    with pytest.raises(SettingsError, match="hard labels"):
        train_teacher(
            load_images("digits"), tmp_path / "out", test=load_images("digits"), protocol=BRIEF.model_copy(update={"labels": "stored"})
        )


def test_soft_labels_are_the_teachers_and_kept(teacher: Teacher, digits: ImageData, tmp_path: Path) -> None:
    """Logits of the images as they are, 2 bytes each, columns in the set's order; a second call reads them back."""
    train = training_images(random_real(digits, tmp_path / "set", ipc=1, image_size=8))
    kept = teacher.soft_labels(train, tmp_path / "soft.safetensors")
    assert (kept.shape, kept.dtype) == ((10, 10), torch.float16)
    torch.testing.assert_close(kept.float(), teacher.logits(train.read(torch.arange(10))), atol=2e-2, rtol=2e-3)
    assert load_file(tmp_path / "soft.safetensors")["logits"].equal(kept)
    flipped = type(train)(train.images, train.labels, tuple(reversed(train.class_names)))
    assert teacher.soft_labels(flipped).equal(kept.flip(1))
    assert teacher.soft_labels(flipped, tmp_path / "soft.safetensors").equal(kept)


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["online", "stored"])
def test_a_student_learns_from_a_teacher(labels: str, teacher: Teacher, digits: ImageData, validation: ImageData, tmp_path: Path) -> None:
    """Two images a class, 60 passes: far above chance. The row tells of the teacher and of 20 x 10 x 2 bytes of stored labels."""
    made = random_real(digits, tmp_path / "set", ipc=2, image_size=8)
    fields = {
        "labels": labels,
        "temperature": 4.0,
        "epochs": 60,
        "learning_rate": 0.05,
        "label_smoothing": 0.0,
        "mix": "cutmix",
        "checks": 1,
    }
    protocol = BRIEF.model_copy(update=fields)
    row = evaluate(made, validation, student="convnet1", protocol=protocol, teacher=teacher.source, seeds=(0,)).as_row()
    assert row["accuracy_mean"] > 0.4
    assert row["labels"] == "soft"
    assert row["teacher"]["accuracy"] == pytest.approx(teacher.about["accuracy"], abs=1e-6)
    assert row["soft_label_bytes"] == (400 if labels == "stored" else 0)
    assert set(row["per_class"]) == set(made.class_names)


def test_features_are_what_the_classifier_sees(teacher: Teacher, digits: ImageData) -> None:
    """The classifier on the embedding gives the logits; columns follow the names that are asked for."""
    images = training_images(digits).read(torch.arange(3))
    logits = teacher.logits(images)
    assert torch.equal(teacher.network.classifier(teacher.embed(images)), logits)
    assert torch.equal(teacher.logits(images, "730"), logits[:, [7, 3, 0]])


def test_images_of_another_side_are_resized(teacher: Teacher, digits: ImageData) -> None:
    """Pixels a, b, c, ... that are each doubled and then halved by an antialiased bilinear filter, of weights 1, 3, 3, 1.

    Inside, a a b b c c becomes (a + 6 b + c) / 8; at the border, where one pixel of the filter is missing, (6 a + b) / 7.
    """
    images = training_images(digits).read(torch.arange(3))
    blur = torch.diag(torch.full((8,), 6.0)) + torch.diag(torch.ones(7), 1) + torch.diag(torch.ones(7), -1)
    blur /= blur.sum(dim=1, keepdim=True)
    doubled = images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(teacher.logits(doubled), teacher.logits(blur @ images @ blur.T), atol=1e-4, rtol=1e-4)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image_folder: MakeFolder) -> None:
    """train-teacher, then evaluate with its soft labels; random real images stand beside the set under the same teacher."""
    image_folder({"a": 4, "b": 4})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brief.yaml").write_text("base: teacher\nepochs: 1\n")
    (tmp_path / "soft.yaml").write_text("base: stored\nepochs: 1\n")
    assert (
        main(
            [
                "train-teacher",
                "images",
                "--test",
                "images",
                "--out",
                "t",
                "--student",
                "convnet1",
                "--protocol",
                "brief.yaml",
                "--at-epochs",
                "[1]",
            ]
        )
        == 0
    )
    assert Teacher.load("t/epochs/1").fingerprint == Teacher.load("t").fingerprint
    said = capsys.readouterr()
    assert "test images right" in said.out
    assert "warning: the test images are the training images" in said.err
    soft = ["--protocol", "soft.yaml", "--student", "convnet1", "--seeds", "[0]", "--json"]
    assert main(["evaluate", "images", "--test", "images", "--data", "images", "--teacher", "t", *soft]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [(row["method"], row["labels"], row["teacher"]["source"]) for row in rows] == [
        ("folder", "soft", "t"),
        ("random_real", "soft", "t"),
    ]
    assert main(["evaluate", "images", "--test", "images", *soft]) == 2
    assert "needs a teacher" in capsys.readouterr().err


def test_a_teacher_is_measured_once_on_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other images, or other labels of the same ones, are measured anew; the same ones are not, even if nothing could measure them."""
    network = new_student("convnet1", 2, 8)
    teacher = Teacher(network, "convnet1", ("a", "b"), 8, {})
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    test = LabelledImages(images, torch.arange(10) % 2, ("a", "b"))
    measured = describe_teacher(teacher, test)
    swapped = describe_teacher(teacher, LabelledImages(images, (torch.arange(10) + 1) % 2, ("a", "b")))
    assert swapped["accuracy"] == pytest.approx(1 - measured["accuracy"])
    monkeypatch.setattr("d3hr.evaluation.evaluate.score", None)
    assert describe_teacher(teacher, test) == measured
