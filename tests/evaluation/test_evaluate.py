import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr import ImageData, evaluate, load_images, random_real
from d3hr.comparison.tables import accuracy_table
from d3hr.errors import ClassMismatch, SettingsError
from d3hr.evaluation.augmentation import Mixed
from d3hr.evaluation.images import LabelledImages, real_images, training_images
from d3hr.evaluation.protocols import Protocol, protocol_from
from d3hr.evaluation.results import Evaluation, TrainingResult
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import score_network, train_and_test
from d3hr.prior.class_matching import match_classes
from tests.conftest import MakeFolder

SHORT = Protocol(name="short", steps=20, batch_size=64, learning_rate=0.05)


def two_colours(root: Path, names: tuple[str, str], count: int = 4) -> Path:
    """Dark images in the first class, light ones in the second, with a gradient so that instance norm leaves something."""
    for name, flip in zip(names, (False, True), strict=True):
        (root / name).mkdir(parents=True)
        for index in range(count):
            gradient = Image.linear_gradient("L").resize((8, 8)).point(lambda value, shift=index: min(255, value + shift))
            (gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if flip else gradient).save(root / name / f"{index}.png")
    return root


def test_a_student_learns_what_can_be_learned(tmp_path: Path) -> None:
    """Two classes that differ in the direction of a gradient are told apart without fault, on images the student has not seen."""
    train = load_images(two_colours(tmp_path / "train", ("down", "up")))
    test = load_images(two_colours(tmp_path / "test", ("down", "up"), count=9))
    result = evaluate(train, test, protocol=SHORT, seeds=(0, 1))
    assert [run.last_epoch for run in result.runs] == [1.0, 1.0]
    assert result.accuracy_std == 0
    assert (result.method, result.ipc) == ("folder", 4)


def test_labels_are_matched_by_name(tmp_path: Path) -> None:
    """A test set whose parquet order is reversed has the same accuracy; swapped names give none."""
    train = load_images(two_colours(tmp_path / "train", ("a", "b")))
    swapped = load_images(two_colours(tmp_path / "swapped", ("b", "a")))
    assert evaluate(train, swapped, protocol=SHORT, seeds=(0,)).accuracy_mean == 0.0
    labelled = real_images(swapped, ("a", "b"), 8)
    assert labelled.class_names == ("a", "b")
    assert labelled.labels.tolist() == [0] * 4 + [1] * 4


class Fixed(torch.nn.Module):
    """Gives the same logits for every image."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.bias.expand(len(images), -1)


def test_scores_by_hand() -> None:
    """Always class 1, on labels 0, 1, 1, 2: one half, and in the confusion matrix a middle column of 1, 2, 1; no top-5 of 3 classes."""
    test = LabelledImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1, 2]), ("a", "b", "c"))
    network = Fixed(0.0, 1.0, 0.0).train()
    found = score_network(network, test)
    assert (found.accuracy, found.top5) == (0.5, None)
    assert found.confusion == ((0, 1, 0), (0, 2, 0), (0, 1, 0))
    assert network.training


def test_top_five_by_hand() -> None:
    """Classes ranked 5, 4, 3, 2, 1, 0 by their logits: of labels 0, 1, 5, 5 the last of six ranks is outside the first five: 3 of 4."""
    test = LabelledImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 5, 5]), tuple("abcdef"))
    found = score_network(Fixed(0.0, 1.0, 2.0, 3.0, 4.0, 5.0), test)
    assert (found.accuracy, found.top5) == (0.5, 0.75)


@pytest.mark.slow
def test_a_seed_repeats_and_leaves_the_global_state_alone(digits: ImageData, tmp_path: Path) -> None:
    made = random_real(digits, tmp_path / "set", ipc=2, image_size=8)
    test = load_images("digits", split="validation")
    state = torch.random.get_rng_state()
    first, second = (evaluate(made, test, protocol=SHORT, seeds=(3,)) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())
    assert evaluate(made, test, protocol=SHORT, seeds=(4,)).runs != first.runs


def test_figures_by_hand() -> None:
    """Accuracies 0.5 and 0.7: mean 0.6, sample std 0.1414; best epochs 0.6 and 0.8: 0.7, named apart."""
    row = Evaluation("d3hr", 10, "convnet3", SHORT, (TrainingResult(0.5, 0.6), TrainingResult(0.7, 0.8))).as_row()
    assert row["accuracy_mean"] == pytest.approx(0.6)
    assert row["accuracy_std"] == pytest.approx(0.141421, abs=1e-6)
    assert row["best_epoch_mean"] == pytest.approx(0.7)
    assert (row["method"], row["ipc"], row["seeds"], row["labels"]) == ("d3hr", 10, 2, "hard")
    assert row["protocol"] == "short"
    assert protocol_from(row["protocol_settings"]) == SHORT


def test_a_protocol_by_name_is_that_of_the_images_per_class(tmp_path: Path) -> None:
    """A set of 4 images a class is trained on with what the protocol says for 4."""
    (tmp_path / "brief.yaml").write_text("base: quick\nby_ipc: {4: {steps: 2}, 5: {steps: 3}}\n")
    colours = load_images(two_colours(tmp_path / "train", ("down", "up")))
    assert evaluate(colours, colours, protocol=str(tmp_path / "brief.yaml"), seeds=(0,)).protocol.steps == 2


def test_spread_over_sets_and_over_trainings_apart() -> None:
    """Sets 0 and 1, trained on twice each: 0.5, 0.7 and 0.6, 0.8. Means 0.6 and 0.7: std 0.0707. Within sets: std 0.1414 both.

    Confusion [[1, 1], [0, 2]] and [[2, 0], [1, 1]]: 3 of 4 images of the first class right, 3 of 4 of the second.
    """
    matrices = (((1, 1), (0, 2)), ((2, 0), (1, 1)))
    runs = tuple(
        TrainingResult(accuracy, 0.8, None, matrices[seed], seed, made)
        for accuracy, seed, made in [(0.5, 0, 0), (0.7, 1, 0), (0.6, 0, 1), (0.8, 1, 1)]
    )
    row = Evaluation("d3hr", 1, "convnet1", SHORT, runs, class_names=("a", "b"), name="ours").as_row()
    assert row["distillation_std"] == pytest.approx(0.070711, abs=1e-6)
    assert row["training_std"] == pytest.approx(0.141421, abs=1e-6)
    assert (row["name"], row["distillation_seeds"], row["training_seeds"]) == ("ours", [0, 1], [0, 1])
    assert row["per_class"] == {"a": 0.75, "b": 0.75}
    assert row["confusion"] == [[6, 2], [2, 6]]
    alone = Evaluation("d3hr", 1, "convnet1", SHORT, runs[:1]).as_row()
    assert (alone["distillation_std"], alone["training_std"]) == (None, None)


def test_a_table_says_how_long_each_training_was() -> None:
    """Rows of 2 and of 3 epochs: both lengths stand in the heading, each once."""
    rows = [
        Evaluation("d3hr", ipc, "resnet18", SHORT.model_copy(update={"steps": None, "epochs": epochs}), (TrainingResult(0.5, 0.5),))
        for ipc, epochs in ((1, 2), (10, 3), (50, 3))
    ]
    assert "resnet18, hard labels, protocol short (2 epochs, 3 epochs)" in accuracy_table(rows)


def test_last_epoch_is_the_end_and_best_epoch_the_best_check(tmp_path: Path) -> None:
    """Twenty steps of the right classes, a check, 20 steps of the swapped classes, a check: all 8 images right, then all wrong."""
    images = training_images(load_images(two_colours(tmp_path / "train", ("down", "up"))))
    steps = itertools.count()

    def swapped_from_the_middle_on(mixed: Mixed, positions: torch.Tensor) -> torch.Tensor:
        return torch.eye(2)[images.labels[positions] if next(steps) < 20 else 1 - images.labels[positions]]

    protocol = SHORT.model_copy(update={"steps": 40, "schedule": "half_cosine", "checks": 2})
    result = train_and_test(images, images, student="convnet3", protocol=protocol, targets=swapped_from_the_middle_on, seed=0)
    assert (result.best_epoch, result.last_epoch) == (1.0, 0.0)
    assert result.confusion == ((0, 4), (4, 0))


def test_classes_that_differ_are_refused_both_ways(image_folder: MakeFolder) -> None:
    ab = load_images(image_folder({"a": 2, "b": 2}, name="ab"))
    abc = load_images(image_folder({"a": 2, "b": 2, "c": 2}, name="abc"))
    with pytest.raises(ClassMismatch, match="test set"):
        evaluate(ab, abc)
    with pytest.raises(ClassMismatch, match="training set"):
        evaluate(abc, ab)
    with pytest.raises(SettingsError, match="seed"):
        evaluate(ab, ab, seeds=())
    with pytest.raises(SettingsError, match="given twice"):
        evaluate(ab, ab, seeds=(1, 1))


def test_classes_are_matched_in_any_unicode_form(image_folder: MakeFolder, tmp_path: Path) -> None:
    """A folder from a Mac names a class by e and an accent: folders, teachers and priors of the other form have the same classes."""
    mac, linux = "cafe\u0301", "caf\u00e9"
    there = load_images(image_folder({mac: 2, "tea": 2}, name="mac"))
    here = load_images(image_folder({linux: 2, "tea": 2}, name="linux"))
    assert there.class_names == here.class_names == (linux, "tea")
    assert real_images(there, here.class_names, 8).class_names == here.class_names
    (tmp_path / "teacher").mkdir()
    Teacher(new_student("convnet1", 2, 8), "convnet1", (mac, "tea"), 8, {}).save(tmp_path / "teacher")
    Teacher.load(tmp_path / "teacher").require_classes(here.class_names, "these")
    assert [match.conditioning_id for match in match_classes(here.class_names, ["tea", mac], of="these")] == [1, 0]


def test_another_image_side_is_seen_in_training_and_testing(tmp_path: Path) -> None:
    """Halving averages with weights 1, 3, 3, 1 at most: a constant image keeps its level, its own side keeps every bit."""
    root = two_colours(tmp_path / "train", ("down", "up"))
    colours = load_images(root)
    own = training_images(colours)
    assert torch.equal(training_images(colours, 8).images, own.images)
    half = training_images(colours, 4)
    assert half.images.shape == (8, 3, 4, 4)
    assert half.images.dtype == torch.uint8
    inner = own.images.float()[:, :, 1:-1, 1:-1].mean(dim=(2, 3))
    assert (half.images.float().mean(dim=(2, 3)) - inner).abs().max() < 2  # a linear gradient keeps its mean
    assert real_images(colours, half.class_names, 4).images.shape == (8, 3, 4, 4)
    assert evaluate(colours, colours, student="convnet1", protocol=SHORT, seeds=(0,), image_size=4).accuracy_mean == 1.0
    with pytest.raises(SettingsError, match="--image-size"):
        evaluate(colours, colours, protocol=SHORT, image_size=0)


def test_training_and_test_images_are_resized_alike(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Noise of 16 px, stored or in a folder that is read at 40, seen at 6: bit by bit the test images of the same files."""
    images = load_images(image_folder({"a": 3, "b": 3}, size=16))
    expected = real_images(images, images.class_names, 6).images
    assert training_images(images.at_size(40), 6).images.equal(expected)
    stored = training_images(random_real(images, tmp_path / "set", ipc=3, image_size=16), 6)
    for label in (0, 1):
        ours, theirs = (sorted(image.numpy().tobytes() for image in each[3 * label : 3 * label + 3]) for each in (stored.images, expected))
        assert ours == theirs


def test_test_images_are_cropped_at_their_centre(tmp_path: Path) -> None:
    """At 7/8 of the side, images for a student of 14 pixels are the middle of those of 16; all of the side is the images as they are."""
    colours = load_images(two_colours(tmp_path / "train", ("down", "up")))
    larger = real_images(colours, colours.class_names, 16).images
    assert torch.equal(real_images(colours, colours.class_names, 14, 0.875).images, larger[:, :, 1:15, 1:15])
    assert torch.equal(real_images(colours, colours.class_names, 16, 1.0).images, larger)


@pytest.mark.parametrize(("stored", "sides"), [(True, (0.08, 0.04)), (False, (0.04, 0.04))])
def test_the_side_of_training_images_is_the_protocols(
    stored: bool, sides: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 8 pixels for a student of 4: where crops are of the stored images they stay at 8; test images are of 4 in any case."""

    def sides_as_accuracies(train: LabelledImages, tested: LabelledImages, **options: Any) -> TrainingResult:
        return TrainingResult(train.image_size / 100, tested.image_size / 100)

    monkeypatch.setattr("d3hr.evaluation.tasks.train_and_test", sides_as_accuracies)
    colours = load_images(two_colours(tmp_path / "train", ("down", "up")))
    protocol = SHORT.model_copy(update={"crop_scale": (0.5, 1.0), "crop_stored": stored})
    made = evaluate(colours, colours, student="convnet1", protocol=protocol, seeds=(0,), image_size=4)
    assert (made.accuracy_mean, made.best_epoch_mean) == sides


def test_crops_are_taken_from_the_stored_images(tmp_path: Path) -> None:
    """A student of 4 pixels is trained on crops of images of 8, and is tested at 4; a crop of everything is the image at 4 pixels."""
    colours = load_images(two_colours(tmp_path / "train", ("down", "up")))
    cropped = SHORT.model_copy(update={"crop_scale": (0.5, 1.0), "crop_stored": True})
    assert evaluate(colours, colours, student="convnet1", protocol=cropped, seeds=(0,), image_size=4).accuracy_mean == 1.0
    seen = list[torch.Size]()

    def targets(mixed: Mixed, positions: torch.Tensor) -> torch.Tensor:
        seen.append(mixed.images.shape)
        return torch.eye(2)[positions % 2]

    tested = real_images(colours, colours.class_names, 4)
    train_and_test(training_images(colours), tested, student="convnet1", protocol=cropped, targets=targets, seed=0)
    assert set(seen) == {torch.Size((8, 3, 4, 4))}
    with pytest.raises(SettingsError, match="size"):
        evaluate(colours, colours, protocol=cropped, image_size=0)
