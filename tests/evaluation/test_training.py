import math
from pathlib import Path

import pytest
import torch
from torch import nn

from d3hr import load_images, random_real
from d3hr.data.dataset import ImageData
from d3hr.errors import NumericalError
from d3hr.evaluation.images import LabelledImages, real_images, training_images
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.results import TrainingResult
from d3hr.evaluation.training import check_steps, hard_targets, learning_rate_at, new_optimiser, train_and_test

BRIEF = Protocol(name="brief", epochs=6, batch_size=8, learning_rate=0.01)
SGD = Protocol(name="sgd", steps=4, batch_size=2, learning_rate=0.1, weight_decay=0.5)
ADAMW = Protocol(
    name="adamw",
    epochs=4,
    batch_size=2,
    optimiser="adamw",
    learning_rate=0.1,
    schedule="half_cosine",
    weight_decay=0.5,
    decay_vectors=False,
)


@pytest.fixture
def sets(digits: ImageData, tmp_path: Path) -> tuple[LabelledImages, LabelledImages]:
    """Twenty digits to train on and 240 to test on."""
    train = training_images(random_real(digits, tmp_path / "set", ipc=2, image_size=8))
    return train, real_images(load_images("digits", split="validation"), train.class_names, 8)


def run(sets: tuple[LabelledImages, LabelledImages], student: str, protocol: Protocol, seed: int) -> TrainingResult:
    return train_and_test(*sets, student=student, protocol=protocol, targets=hard_targets(sets[0].labels, 10), seed=seed)


def test_checks_are_even_and_the_last_is_at_the_end() -> None:
    """20 images in batches of at most 8: 3 steps an epoch. 20 epochs are 60 steps, and of 10 checks one follows every sixth.

    One epoch of 3 steps has room for 3 checks. A single check is at the end.
    """
    assert check_steps(BRIEF.model_copy(update={"epochs": 20}), 20) == {6 * check for check in range(1, 11)}
    assert check_steps(BRIEF.model_copy(update={"epochs": 1}), 20) == {1, 2, 3}
    assert check_steps(BRIEF.model_copy(update={"checks": 1}), 20) == {18}


def test_checks_may_begin_late() -> None:
    """3 steps an epoch: of 20 epochs those from 10 on end after steps 33 to 60, and 4 checks are 9 steps apart.

    Where the training ends before, only its end is left, and it is what a single check sees.
    """
    late = BRIEF.model_copy(update={"epochs": 20, "best_from": 10, "checks": 4})
    assert check_steps(late, 20) == {33, 42, 51, 60}
    assert check_steps(late.model_copy(update={"checks": 100}), 20) == set(range(33, 61))
    assert check_steps(late.model_copy(update={"checks": 1}), 20) == {60}
    assert check_steps(late.model_copy(update={"epochs": 5}), 20) == {15}


def test_a_student_of_its_own_learning_rate(sets: tuple[LabelledImages, LabelledImages]) -> None:
    """It trains as at that rate; others do not."""
    short = BRIEF.model_copy(update={"epochs": 2})
    own, slow = (short.model_copy(update={"learning_rate": 1e-6, "learning_rate_by_student": rates}) for rates in ({"convnet1": 0.01}, {}))
    assert run(sets, "convnet1", own, 0).confusion == run(sets, "convnet1", short, 0).confusion
    assert run(sets, "convnet1", slow, 0).confusion != run(sets, "convnet1", short, 0).confusion


def test_a_loss_that_is_not_finite_is_an_error(sets: tuple[LabelledImages, LabelledImages]) -> None:
    """Rates of 1e30 make weights of that size in the first step; the logits of the second are beyond float32."""
    with pytest.raises(NumericalError, match=r"(?s)training convnet1: the loss is not finite.*at step 1"):
        run(sets, "convnet1", BRIEF.model_copy(update={"learning_rate": 1e30}), 0)


@pytest.mark.parametrize(
    ("student", "mix", "epochs"),
    [("convnet1", "mixup", 6), ("convnet1", "cutmix", 6), pytest.param("resnet18", "mixup", 1, marks=pytest.mark.slow)],
)
def test_a_seed_decides_everything(sets: tuple[LabelledImages, LabelledImages], student: str, mix: str, epochs: int) -> None:
    """Weights, order, crops, flips, pairs and shares follow from the seed, whatever the global generator's state."""
    protocol = protocol_named("paper-hard", ipc=2, classes=10).model_copy(update={"epochs": epochs, "batch_size": 10, "mix": mix})
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


def test_training_on_one_device_leaves_the_others_alone(
    sets: tuple[LabelledImages, LabelledImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU of a machine with two GPUs, no step saves the state of a GPU's generator."""
    saved = list[int]()

    def get_state(index: int) -> torch.Tensor:
        saved.append(index)
        return torch.zeros(1)

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_rng_state", get_state)
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda state, index: None)
    run(sets, "convnet1", BRIEF.model_copy(update={"epochs": 1, "checks": 1}), 0)
    assert saved == []


@pytest.mark.slow
def test_the_papers_protocol_teaches(sets: tuple[LabelledImages, LabelledImages]) -> None:
    """Crops, mixup and AdamW lead well above chance, 10 %, on digits the student has not seen, within 100 passes."""
    protocol = protocol_named("paper-hard", ipc=2, classes=10).model_copy(update={"epochs": 100, "flip": False, "crop_scale": (0.5, 1.0)})
    assert run(sets, "convnet3", protocol, 0).last_epoch > 0.4


def test_the_rate_changes_once_a_tick() -> None:
    """Of 3 images in batches of 2 an epoch has two steps of one rate; with a length in steps each has its own."""
    by_epoch = [learning_rate_at(ADAMW, step, 3) for step in range(8)]
    assert by_epoch == pytest.approx([0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 8)) for epoch in (0, 0, 1, 1, 2, 2, 3, 3)])
    assert [learning_rate_at(SGD, step, 3) for step in range(4)] == pytest.approx([0.1, 0.085355, 0.05, 0.014645], abs=1e-6)


def test_a_warm_up_rises_linearly_under_the_schedule() -> None:
    """Over half of 4 steps: 1/2 and 1 of the cosine's 1 and 0.853553, then the cosine alone."""
    rising = SGD.model_copy(update={"warmup": 0.5})
    assert [learning_rate_at(rising, step, 3) for step in range(4)] == pytest.approx([0.05, 0.085355, 0.05, 0.014645], abs=1e-6)


def test_vectors_are_exempt_from_weight_decay() -> None:
    """A linear layer, a norm: the matrix decays; bias, scale and shift, all 1-D, do not, unless the protocol says so."""
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    decayed, exempt = new_optimiser(network, ADAMW).param_groups
    assert (decayed["weight_decay"], [parameter.ndim for parameter in decayed["params"]]) == (0.5, [2])
    assert (exempt["weight_decay"], [parameter.ndim for parameter in exempt["params"]]) == (0.0, [1, 1, 1])
    assert [len(group["params"]) for group in new_optimiser(network, SGD).param_groups] == [4, 0]


@pytest.mark.parametrize(("protocol", "matrix", "bias"), [(SGD, 0.95, 0.95), (ADAMW, 0.95, 1.0)])
def test_a_step_without_gradient_shows_the_decay(protocol: Protocol, matrix: float, bias: float) -> None:
    """From 1, with rate 0.1 and decay 0.5, both optimisers go to 1 - 0.1 * 0.5 = 0.95; what is exempt stays."""
    network = nn.Linear(2, 2)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    new_optimiser(network, protocol).step()
    torch.testing.assert_close(network.weight.detach(), torch.full((2, 2), matrix))
    torch.testing.assert_close(network.bias.detach(), torch.full((2,), bias))
