from pathlib import Path

import pytest
import torch

from d3hr import load_images, random_real
from d3hr.data.dataset import ImageData
from d3hr.errors import NumericalError
from d3hr.evaluation.images import LabelledImages, real_images, training_images
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.results import TrainingResult
from d3hr.evaluation.targets import hard_targets
from d3hr.evaluation.training import Training, seeded_student, train_and_test

BRIEF = Protocol(name="brief", epochs=6, batch_size=8, learning_rate=0.01)


@pytest.fixture
def sets(digits: ImageData, tmp_path: Path) -> tuple[LabelledImages, LabelledImages]:
    """Twenty digits to train on and 240 to test on."""
    train = training_images(random_real(digits, tmp_path / "set", ipc=2, image_size=8))
    return train, real_images(load_images("digits", split="validation"), train.class_names, 8)


def training(train: LabelledImages, protocol: Protocol) -> Training:
    return Training(
        seeded_student("convnet1", 10, 8, 0), train.read, len(train.labels), 8, protocol, hard_targets(train.labels, 10), seed=0
    )


def run(sets: tuple[LabelledImages, LabelledImages], student: str, protocol: Protocol, seed: int) -> TrainingResult:
    return train_and_test(*sets, student=student, protocol=protocol, targets=hard_targets(sets[0].labels, 10), seed=seed)


def checked_at(made: Training) -> list[int]:
    steps = []
    while made.step < made.steps:
        made.advance()
        steps += [made.step] if made.at_check else []
    return steps


def test_epochs_are_whole_passes_and_checks_are_even(sets: tuple[LabelledImages, LabelledImages]) -> None:
    """20 images in batches of at most 8: 3 steps an epoch. 20 epochs are 60 steps, and of 10 checks one stands after every sixth."""
    assert checked_at(training(sets[0], BRIEF.model_copy(update={"epochs": 20}))) == [6 * check for check in range(1, 11)]


def test_a_short_run_ends_with_a_check(sets: tuple[LabelledImages, LabelledImages]) -> None:
    """One epoch of 3 steps has at most 3 checks; the last is at the end. One check is at the end alone."""
    assert checked_at(training(sets[0], BRIEF.model_copy(update={"epochs": 1})))[-1] == 3
    assert checked_at(training(sets[0], BRIEF.model_copy(update={"checks": 1}))) == [18]


def test_a_pass_visits_each_image_once_in_even_batches(sets: tuple[LabelledImages, LabelledImages]) -> None:
    """21 images in batches of at most 20 are 11 and 10, never one alone; another pass has another order."""
    seen: list[torch.Tensor] = []
    made = training(sets[0], BRIEF.model_copy(update={"batch_size": 20}))

    def read(positions: torch.Tensor) -> torch.Tensor:
        seen.append(positions)
        return torch.zeros(len(positions), 3, 8, 8)

    made.count, made.read = 21, read
    made.targets = lambda mixed, positions: torch.eye(10)[positions % 10]
    for _ in range(4):
        made.advance()
    assert [len(positions) for positions in seen] == [11, 10, 11, 10]
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(21))
    assert not torch.equal(first, second)


def test_a_loss_that_is_not_finite_is_an_error(sets: tuple[LabelledImages, LabelledImages]) -> None:
    made = training(sets[0], BRIEF)
    with pytest.raises(NumericalError, match="step 0 of 18"):
        made.require_finite(torch.tensor(float("nan")))


@pytest.mark.parametrize(("student", "mix", "epochs"), [("convnet1", "mixup", 6), ("convnet1", "cutmix", 6), ("resnet18", "mixup", 1)])
def test_a_seed_decides_everything(sets: tuple[LabelledImages, LabelledImages], student: str, mix: str, epochs: int) -> None:
    """Weights, order, crops, flips, pairs and shares follow from the seed, whatever the global generator's state."""
    protocol = protocol_named("paper-hard", ipc=2).model_copy(update={"epochs": epochs, "batch_size": 10, "mix": mix})
    first: list[TrainingResult] = []
    second: list[TrainingResult] = []
    other: list[TrainingResult] = []
    for runs, seed in ((first, 3), (second, 3), (other, 4)):
        torch.rand(7)
        state = torch.random.get_rng_state()
        runs.append(run(sets, student, protocol, seed))
        assert torch.equal(state, torch.random.get_rng_state())
    assert first == second
    assert (first[0].confusion, first[0].last_epoch) != (other[0].confusion, other[0].last_epoch)


def test_the_papers_protocol_teaches(sets: tuple[LabelledImages, LabelledImages]) -> None:
    """Crops, mixup and AdamW lead well above chance, 10 %, on digits the student has not seen, within 100 passes."""
    protocol = protocol_named("paper-hard", ipc=2).model_copy(update={"epochs": 100, "flip": False, "crop_scale": (0.5, 1.0)})
    assert run(sets, "convnet3", protocol, 0).last_epoch > 0.4
