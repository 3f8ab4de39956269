import math

import pytest
import torch

from d3hr.evaluation.augmentation import Mixed
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.training import hard_targets, online_targets, stored_targets, student_loss

HARD = Protocol(name="hard", steps=1, batch_size=2, learning_rate=0.1)
SOFT = HARD.model_copy(update={"labels": "stored", "temperature": 2.0})
UNMIXED = Mixed(torch.zeros(2, 3, 1, 1), torch.tensor([0, 1]), torch.ones(2))
PAIR = Mixed(torch.zeros(2, 3, 1, 1), torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))


def test_hard_targets_are_those_of_the_positions() -> None:
    """Labels 2, 0, 1 of three images; the batch holds the last and the first. Mixed with shares 3/4 and 1/2 of its own."""
    targets = hard_targets(torch.tensor([2, 0, 1]), 3)
    assert targets(UNMIXED, torch.tensor([2, 0])).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert targets(PAIR, torch.tensor([2, 0])).tolist() == [[0, 0.75, 0.25], [0, 0.5, 0.5]]


def test_smoothing_spreads_a_share() -> None:
    """A tenth over two classes: 0.95 and 0.05; cross-entropy of logits 0, log 3 (probabilities 1/4, 3/4) is then by hand."""
    targets = hard_targets(torch.tensor([0, 1]), 2, smoothing=0.1)(UNMIXED, torch.tensor([0, 1]))
    torch.testing.assert_close(targets, torch.tensor([[0.95, 0.05], [0.05, 0.95]]))
    logits = torch.tensor([[0.0, math.log(3)]]).expand(2, 2)
    quarter, rest = math.log(4), math.log(4 / 3)
    expected = (0.95 * quarter + 0.05 * rest + 0.05 * quarter + 0.95 * rest) / 2
    assert float(student_loss(logits, targets, HARD)) == pytest.approx(expected, rel=1e-6)


def test_stored_targets_are_softened_and_mixed() -> None:
    """Logits 0, 2 log 3 at T = 2 are 0, log 3: probabilities 1/4, 3/4. With 0, 0 (1/2, 1/2) in a share of 1/4: 5/16, 11/16."""
    targets = stored_targets(torch.tensor([[0.0, 2 * math.log(3)], [0.0, 0.0]]).half(), 2.0)(PAIR, torch.tensor([0, 1]))
    torch.testing.assert_close(targets, torch.tensor([[5 / 16, 11 / 16], [3 / 8, 5 / 8]]), atol=2e-4, rtol=0)


def test_online_targets_ask_about_what_the_student_sees() -> None:
    """A teacher whose logits are the mean colour and 0, at T = 2: colour 2 log 3 gives 3/4, 1/4."""
    images = torch.tensor([2 * math.log(3), 0.0])[:, None, None, None].expand(2, 3, 1, 1)
    ask = online_targets(lambda seen: torch.stack([seen.mean(dim=(1, 2, 3)), torch.zeros(len(seen))], dim=1), 2.0)
    found = ask(Mixed(images, PAIR.partners, PAIR.shares), torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25], [0.5, 0.5]]))


def test_soft_loss_is_kl_at_the_temperature() -> None:
    """KL of the targets (1/4, 3/4) from the student's probabilities, averaged over a batch whose other image is right; no factor T^2.

    Logits 0, 0 are (1/2, 1/2) at any T. Logits 0, 2 log 3 are (1/4, 3/4) at T = 2, which is no loss, and (1/10, 9/10) at T = 1.
    """
    targets = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    logits = torch.tensor([[0.0, 2 * math.log(3)], [0.0, 0.0]])
    from_halves = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    from_tenths = 0.25 * math.log(0.25 / 0.1) + 0.75 * math.log(0.75 / 0.9)
    assert float(student_loss(torch.zeros(2, 2), targets, SOFT)) == pytest.approx(from_halves / 2, rel=1e-6)
    assert float(student_loss(logits, targets, SOFT)) == pytest.approx(0, abs=1e-6)
    assert float(student_loss(logits, targets, SOFT.model_copy(update={"temperature": 1.0}))) == pytest.approx(from_tenths / 2, rel=1e-6)
