"""Agreement of labels with neighbours, on classes that lie apart and on classes that do not."""

import numpy as np
import pytest

from d3hr.diagnostics.neighbours import LabelAgreement, label_agreement


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
def test_the_share_of_wrong_labels_is_found_where_classes_lie_apart(share: float) -> None:
    """Four classes of 500 points whose centres lie 40 deviations apart, of which a share is called something else."""
    draws = np.random.default_rng(0)
    points = draws.normal(size=(4, 500, 8)) + 40 * np.eye(4, 8)[:, None]
    labels = np.repeat(np.arange(4), 500)
    wrong = draws.permutation(2000)[: round(share * 2000)]
    labels[wrong] = (labels[wrong] + draws.integers(1, 4, len(wrong))) % 4
    flat = points.reshape(2000, 8)
    found = label_agreement([flat[labels == label] for label in range(4)])
    assert found.contradicted == pytest.approx(share, abs=0.02)


def test_classes_that_lie_mixed_tell_nothing() -> None:
    """Ten classes of one distribution: that 8 of 10 neighbours are of one class has a chance of 4e-6."""
    points = np.random.default_rng(0).normal(size=(10, 100, 8))
    assert label_agreement(list(points)) == LabelAgreement(0.0, None)


def test_too_few_points_tell_nothing() -> None:
    """Eight points of a class are seven neighbours and oneself; and of one class alone nothing can be doubted."""
    points = np.zeros((2, 8, 3))
    assert label_agreement(list(points)) == LabelAgreement()
    assert label_agreement([np.zeros((20, 3))]) == LabelAgreement()
