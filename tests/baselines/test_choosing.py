import torch

from d3hr.baselines.choosing import herding, k_center, k_means_centres, k_means_medoids, random_choice


def test_herding_by_hand() -> None:
    """Points 0, 1, 2, 9 on a line, mean 3. First 2 (distance 1). Then (2 + x)/2 nearest to 3: 1, 1.5 and 5.5 for 0, 1, 9: 1 with 1.5.
    Then (3 + x)/3: 1 for 0, 4 for 9: 9 with distance 1."""
    points = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    assert herding(points, 4).tolist() == [2, 1, 3, 0]
    assert herding(points, 2).tolist() == [2, 1]


def test_k_center_by_hand() -> None:
    """Points 0, 1, 2, 9 on a line, mean 3: first 2; the farthest is 9; then 0, at distance 2 from the nearest chosen; 1 is last."""
    points = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    assert k_center(points, 4).tolist() == [2, 3, 0, 1]


def test_equal_images_are_chosen_once_each() -> None:
    """Of four equal images every position is chosen, none twice."""
    same = torch.ones(4, 3)
    for chosen in (herding(same, 4), k_center(same, 4), k_means_medoids(torch.ones(4, 3) + torch.eye(4, 3), 4, 0)):
        assert sorted(chosen.tolist()) == [0, 1, 2, 3]


def test_medoids_are_the_nearest_to_the_centres() -> None:
    """Clusters {0, 1, 5} and {100, 104, 105}: centres 2 and 103, nearest images 1 and 104."""
    points = torch.tensor([[0.0], [100.0], [1.0], [104.0], [5.0], [105.0]])
    assert sorted(k_means_centres(points, 2, 0).flatten().tolist()) == [2, 103]
    assert sorted(k_means_medoids(points, 2, 0).tolist()) == [2, 3]


def test_a_larger_random_choice_contains_the_smaller() -> None:
    one, many = (random_choice(9, k, torch.Generator().manual_seed(4)) for k in (2, 9))
    assert many[:2].tolist() == one.tolist()
    assert sorted(many.tolist()) == list(range(9))
