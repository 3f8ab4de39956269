"""Coverage, diversity and nearest neighbours of points on a line; labels of classes that lie apart and of classes that do not."""

import numpy as np
import pytest

from d3hr.diagnostics.neighbours import LabelAgreement, Support, diversity, label_agreement, mean_support, nearest, share_copied, support


def _line(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_support_by_hand() -> None:
    """Real 0, 1, 2, 10 with one neighbour have radii 1, 1, 1, 8; distilled 0.5, 5, 30 have radii 4.5, 4.5, 25.

    0.5 lies in the radii of 0 and 1; 5 in that of 10; 30 in none: precision 2/3, density 3 / (1 * 3) = 1, coverage of {0, 1, 10} 3/4.
    All of 0, 1, 2 lie within 4.5 of 0.5, and 10 within 25 of 30: recall 1. With radii of the nearer two alone 10 would be missed."""
    found = support(_line(0, 1, 2, 10), _line(0.5, 5, 30), neighbours=1)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx((2 / 3, 1.0, 1.0, 0.75))
    assert support(_line(0, 1, 2, 10), _line(0.5, 5), neighbours=1).recall == 0.75


def test_support_of_the_second_neighbour() -> None:
    """Real 0, 1, 3 with two neighbours have radii 3, 2, 3: 2.5 lies in all three, so density is 3 / 2, above 1."""
    assert support(_line(0, 1, 3), _line(2.5), neighbours=2) == Support(precision=1.0, recall=None, density=1.5, coverage=1.0)


def test_support_of_too_few_points() -> None:
    """One real point has no radius; one distilled point has none of its own, so recall is missing. Fewer neighbours than asked do."""
    assert support(_line(0), _line(0, 1)) == Support()
    assert support(_line(0, 1), _line(0.5), neighbours=5) == Support(precision=1.0, recall=None, density=2.0, coverage=1.0)
    assert mean_support([Support(), Support(precision=0.5), Support(precision=1.0)]) == Support(precision=0.75)


def test_diversity_by_hand() -> None:
    """The distances between 0, 1 and 3 are 1, 2 and 3; one point has none."""
    assert diversity(_line(0, 1, 3)) == pytest.approx(2)
    assert diversity(_line(4)) is None


def test_nearest_real_image_and_copies() -> None:
    """Among real 0, 2, 4, 8 distances to the nearest are 2, 2, 2, 4, of median 2. So 4 is a copy (ratio 0), 2.5 one too (0.25), 7 is not
    (0.5), nor is 20 (6)."""
    found = nearest(_line(0, 2, 4, 8), _line(4, 2.5, 7, 20))
    assert found.rows.tolist() == [2, 1, 3, 3]
    assert found.ratios == pytest.approx([0, 0.25, 0.5, 6], abs=1e-6)
    assert share_copied(found.ratios) == 0.5


def test_real_images_that_occur_twice_do_not_hide_copies() -> None:
    """Real 1, 1, 1, 1, 3, 7: the own distances that are not 0 are 2 and 4, of median 3. Where all are the same there is no scale."""
    assert nearest(_line(1, 1, 1, 1, 3, 7), _line(1.3)).ratios == pytest.approx([0.1])
    assert nearest(_line(1, 1), _line(1)).ratios is None
    assert nearest(_line(1), _line(1)).ratios is None


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
    found = label_agreement(list(points))
    assert (found.clear, found.contradicted) == (0.0, None)
    assert found.separation == pytest.approx(0, abs=0.05)


def test_separation_by_hand() -> None:
    """Two classes of twenty lie far apart, but five of each are called by the other's name: neighbours are right about all but those ten
    of forty, so the accuracy is 3/4 where a guess has 1/2."""
    apart = np.repeat([0.0, 100.0], 20)[:, None] + np.random.default_rng(0).normal(size=(40, 1))
    first = np.concatenate([apart[:15], apart[35:]])
    second = np.concatenate([apart[20:35], apart[15:20]])
    assert label_agreement([first, second]).separation == pytest.approx(0.5)


def test_too_few_points_tell_nothing() -> None:
    """Eight points of a class are seven neighbours and oneself; and of one class alone nothing can be doubted."""
    points = np.zeros((2, 8, 3))
    assert label_agreement(list(points)) == LabelAgreement()
    assert label_agreement([np.zeros((20, 3))]) == LabelAgreement()
