from pathlib import Path

import pytest
import torch

from d3hr import load_images, random_real
from d3hr.data import ImageData
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.scores import real_images, training_images
from d3hr.evaluation.students import new_student
from d3hr.evaluation.training import CHECKS, Labelled, _train, train_and_test

BRIEF = Protocol(name="brief", epochs=6, batch_size=8, learning_rate=0.01)


@pytest.fixture
def sets(digits: ImageData, tmp_path: Path) -> tuple[Labelled, Labelled]:
    """Twenty digits to train on and 240 to test on."""
    train = training_images(random_real(digits, tmp_path / "set", ipc=2, image_size=8))
    return train, real_images(load_images("digits", split="validation"), train)


def test_epochs_are_whole_passes_and_checks_are_even(sets: tuple[Labelled, Labelled]) -> None:
    """20 images in batches of 8: 3 steps an epoch. 20 epochs are 60 steps, and a check stands after every sixth."""
    network = new_student("convnet1", 10, 8)
    protocol = BRIEF.model_copy(update={"epochs": 20})
    assert list(_train(network, sets[0], protocol, torch.device("cpu"))) == [6 * check for check in range(1, CHECKS + 1)]


def test_a_short_run_ends_with_a_check(sets: tuple[Labelled, Labelled]) -> None:
    """One epoch of 3 steps has at most 3 checks; the last is at the end."""
    network = new_student("convnet1", 10, 8)
    assert list(_train(network, sets[0], BRIEF.model_copy(update={"epochs": 1}), torch.device("cpu")))[-1] == 3


@pytest.mark.parametrize(("student", "mix", "epochs"), [("convnet1", "mixup", 6), ("convnet1", "cutmix", 6), ("resnet18", "mixup", 1)])
def test_a_seed_decides_everything(sets: tuple[Labelled, Labelled], student: str, mix: str, epochs: int) -> None:
    """Weights, order, crops, flips, pairs and shares follow from the seed, whatever the global generator's state."""
    protocol = protocol_named("paper-hard", ipc=2).model_copy(update={"epochs": epochs, "batch_size": 10, "mix": mix})
    first, second, other = [], [], []
    for runs, seed in ((first, 3), (second, 3), (other, 4)):
        torch.rand(7)
        state = torch.random.get_rng_state()
        runs.append(train_and_test(*sets, student=student, protocol=protocol, seed=seed))
        assert torch.equal(state, torch.random.get_rng_state())
    assert first == second
    assert first != other


def test_the_papers_protocol_teaches(sets: tuple[Labelled, Labelled]) -> None:
    """Crops, mixup and AdamW lead well above chance, 10 %, on digits the student has not seen, within 100 passes."""
    protocol = protocol_named("paper-hard", ipc=2).model_copy(update={"epochs": 100, "flip": False, "crop_scale": (0.5, 1.0)})
    assert train_and_test(*sets, student="convnet3", protocol=protocol, seed=0).last_epoch > 0.4
