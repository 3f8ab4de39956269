"""What a choice says, by hand."""

from pathlib import Path

import pytest

from d3hr.evaluation.choice import REAL, Advantage, Choice, Confirmation, Trial

WON, LOST = Advantage(mean=0.06, low=0.02, high=0.1), Advantage(mean=-0.06, low=-0.1, high=-0.02)
OPEN, ONE = Advantage(mean=0.06, low=-0.02, high=0.14), Advantage(mean=0.06)


def choice(advantage: Advantage | None, tested: Advantage | None = None, **fields: object) -> Choice:
    """A choice of a way with this advantage, or of random real images, and its advantage on test images."""
    real = Trial(name=REAL, method="random_real", command="", accuracies=(0.3, 0.4), minutes=1)
    ours = Trial(name="groups", method="chosen", command="", accuracies=(0.38, 0.42), advantage=advantage or LOST, minutes=2)
    test = {"tested": Confirmation(images=500, accuracies=(0.4, 0.4), real_accuracies=(0.3, 0.3), advantage=tested)} if tested else {}
    usual = {"source": "PHOTOS", "ipc": 10, "labels": "hard", "training_images": 960, "held_out": 240, "student": "convnet3"}
    more = {"image_size": 32, "steps": 200, "confidence": 0.95, "minutes": 3, "budget_minutes": 20}
    return Choice.model_validate({**usual, **more, "trials": (real, ours), "chosen": "groups" if advantage else REAL, **test, **fields})


@pytest.mark.parametrize(
    ("advantage", "tested", "says"),
    [
        (WON, None, "The set beats random real images: groups, +6.0 points, interval +2.0 to +10.0 on 240 held-out images."),
        (OPEN, None, "Nothing is surely better than random real images on 240 held-out images; the best of 1 other way, groups, is kept"),
        (ONE, None, "Nothing is surely better than random real images on 240 held-out images; the best of 1 other way, groups, is kept"),
        (OPEN, WON, "The set beats random real images: groups, +6.0 points, interval +2.0 to +10.0 on 500 test images."),
        (WON, LOST, "The set is worse than random real images: groups, −6.0 points, interval −10.0 to −2.0 on 500 test images."),
        (WON, OPEN, "The set beats random real images: groups, +6.0 points, interval +2.0 to +10.0 on 240 held-out images."),
        (None, None, "Nothing beat random real images, of 1 other way tried: the set is random real images."),
    ],
)
def test_the_first_line(advantage: Advantage | None, tested: Advantage | None, says: str) -> None:
    assert choice(advantage, tested).headline.startswith(says)


def test_the_share_of_all_images() -> None:
    """40 % of 50 % is 80 %; a training that was cut is an estimate, and named so."""
    said = choice(WON, full_accuracy=0.5, full_steps=600).sentences
    assert said[0].startswith("40.0 ± 2.8 % of 240 held-out images") and "35.0 ± 7.1 %" in said[0]
    assert said[1] == "All 960 training images give 50.0 %: the set keeps 80 % of that."
    assert "at least (estimate: 30 steps" in choice(WON, full_accuracy=0.5, full_steps=30, full_complete=False).sentences[1]


def test_a_choice_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = choice(OPEN, WON, left_out=("drawn: no prior.",), next_step="Use it.")
    made.write(tmp_path)
    assert Choice.read(tmp_path) == made
