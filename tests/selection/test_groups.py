import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from d3hr.distillation.grouping import group_score
from d3hr.distillation.settings import Skewness
from d3hr.selection import groups
from d3hr.selection.groups import BLOCK_CANDIDATES, candidate_block, exact_group, search_group, snap_group

WEIGHTS = [(1.0, 1.0, 0.5), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.3, 1.0, 1.0)]


def rows(n: int, f: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Skewed rows [n, f] (float64) with the mean and std of each dimension."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, f, generator=generator, dtype=torch.float64).exp() * torch.rand(f, generator=generator) + 1
    return features, features.mean(dim=0), features.std(dim=0)


def score(
    features: Tensor,
    chosen: list[int],
    mean: Tensor,
    std: Tensor,
    weights: tuple[float, float, float] = WEIGHTS[0],
    skewness: Skewness = "per_dimension",
) -> float:
    assert len(set(chosen)) == len(chosen)
    return float(group_score(features[chosen][None].double(), mean, std, weights=weights, skewness=skewness))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("max_enumerated", [groups.MAX_ENUMERATED, 0])
def test_exact_finds_the_best_of_all_groups(k: int, max_enumerated: int) -> None:
    """Against every group of 14 random cases for each K, once by scoring all and once by the descent alone."""
    for case in range(14):
        n, f, weights = 5 + (case + k) % 8, 1 + case % 6, WEIGHTS[case % 4]
        skewness: Skewness = "per_image" if case in (7, 11) else "per_dimension"
        features, mean, std = rows(n, f if skewness == "per_dimension" else 6, 100 * k + case)
        lowest = min(score(features, list(group), mean, std, weights, skewness) for group in itertools.combinations(range(n), k))
        chosen = exact_group(
            features,
            k,
            mean,
            std,
            weights=weights,
            skewness=skewness,
            generator=torch.Generator(),
            starts=32,
            max_enumerated=max_enumerated,
        )
        assert chosen == sorted(chosen)
        assert score(features, chosen, mean, std, weights, skewness) == pytest.approx(lowest, rel=1e-9), (k, case)


@pytest.mark.parametrize("skewness", ["per_dimension", "per_image"])
def test_no_swap_lowers_the_score_of_an_exact_group(skewness: Skewness) -> None:
    features, mean, std = rows(40, 7, 0)
    chosen = exact_group(features, 6, mean, std, skewness=skewness, generator=torch.Generator(), starts=1)
    swaps = [[*chosen[:member], row, *chosen[member + 1 :]] for member in range(6) for row in range(40) if row not in chosen]
    assert min(score(features, swap, mean, std, skewness=skewness) for swap in swaps) >= score(
        features, chosen, mean, std, skewness=skewness
    )


def test_more_starts_find_no_worse_a_group() -> None:
    features, mean, std = rows(60, 5, 1)
    found = [
        score(features, exact_group(features, 5, mean, std, generator=torch.Generator().manual_seed(2), starts=starts), mean, std)
        for starts in (1, 4, 16)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]


@pytest.mark.parametrize("k", [2, 3, 7, 12])
@pytest.mark.parametrize("values", ["continuous", "few"])
def test_scores_of_replacements_are_those_of_the_groups(k: int, values: str) -> None:
    """Also where a group has dimensions of one value: tenths, whose mean is not exact, must not pass for a spread."""
    features, mean, std = rows(50, 9, 3)
    if values == "few":
        features = (features > 1.4).double() / 10 + 0.3
    weights, others = WEIGHTS[0], features[: k - 1]

    def by_definition(candidates: Tensor) -> Tensor:
        return group_score(candidates, mean, std, weights=weights)

    expected = groups._by_definition(by_definition, features, others)
    torch.testing.assert_close(groups._per_dimension(mean, std, weights, features, others), expected, rtol=1e-10, atol=1e-10)


def test_exact_keeps_its_digits_far_from_zero() -> None:
    """Power sums of these rows, at 1e7 with a spread of 1, would leave no digit of their third moments."""
    features, mean, std = rows(200, 5, 4)
    near = exact_group(features, 6, mean, std, generator=torch.Generator())
    far = exact_group(features + 1e7, 6, mean + 1e7, std, generator=torch.Generator())
    assert near == far


@pytest.mark.parametrize("k", [1, 2, 3, 7])
@pytest.mark.parametrize("skewness", ["per_dimension", "per_image"])
@pytest.mark.parametrize("values", ["continuous", "few"])
def test_scores_of_a_search_are_those_of_the_groups(k: int, skewness: Skewness, values: str) -> None:
    """In float32, of which seven numbers of 0.3 have a mean other than 0.3, and none of these a spread."""
    features, mean, std = rows(30, 7, 5)
    if values == "few":
        features = (features > 1.4).double() / 10 + 0.3
    candidates = features.float()[candidate_block(0, 30, k, seed=8)]
    expected = group_score(candidates.double(), mean, std, skewness=skewness).float()
    found = groups._scores(candidates.clone(), mean.float(), std.float(), WEIGHTS[0], skewness)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 10])
@pytest.mark.parametrize("skewness", ["per_dimension", "per_image"])
def test_search_takes_the_best_of_the_pool(k: int, skewness: Skewness) -> None:
    features, mean, std = rows(12, 7, 5)
    pool = torch.cat([candidate_block(block, 12, k, seed=8) for block in range(2)])[: BLOCK_CANDIDATES + 50]
    scores = group_score(features[pool], mean, std, skewness=skewness)
    chosen = search_group(features.float(), k, mean, std, num_candidates=len(pool), skewness=skewness, seed=8)
    assert score(features, chosen, mean, std, skewness=skewness) == pytest.approx(float(scores.min()), rel=1e-5)


def test_search_does_not_depend_on_how_much_is_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, mean, std = rows(500, 30, 6)
    search = partial(search_group, features.float(), 7, mean, std, num_candidates=3000, seed=0)
    whole = search()
    monkeypatch.setattr(groups, "_SCORED_VALUES", 1000)
    assert search() == whole


def test_a_larger_pool_begins_with_the_smaller() -> None:
    """A search of more candidates finds a score that is no higher, past the end of a block too, and here a lower one each time."""
    features, mean, std = rows(300, 6, 7)
    found = [
        score(features, search_group(features, 8, mean, std, num_candidates=m, seed=1), mean, std) for m in (1, 60, 3 * BLOCK_CANDIDATES)
    ]
    assert found[0] > found[1] > found[2]
    assert found[0] == score(features, candidate_block(0, 300, 8, seed=1)[0].tolist(), mean, std)


def test_every_choice_of_rows_is_equally_likely() -> None:
    """Counts of the 20 choices of 3 of 6 rows among 8,192 candidates: chi-squared with 19 degrees of freedom."""
    candidates = torch.cat([candidate_block(block, 6, 3, seed=0) for block in range(2)])
    assert (candidates >= 0).all() and (candidates < 6).all()
    assert not candidates[:BLOCK_CANDIDATES].equal(candidates[BLOCK_CANDIDATES:])
    choices, counts = candidates.sort(dim=1).values.unique(dim=0, return_counts=True)
    assert len(choices) == math.comb(6, 3)
    assert all(len(set(choice)) == 3 for choice in choices.tolist())
    expected = len(candidates) / len(choices)
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # p = 0.001


def test_all_rows_are_the_only_group_of_so_many() -> None:
    features, mean, std = rows(6, 3, 8)
    every = list(range(6))
    assert search_group(features, 6, mean, std, num_candidates=3, seed=0) == every
    assert exact_group(features, 6, mean, std, generator=torch.Generator()) == every
    assert exact_group(features, 6, mean, std, generator=torch.Generator(), max_enumerated=0) == every


def test_snap_gives_every_drawn_row_a_real_one_of_its_own() -> None:
    """Both 4.1 and 4.2 are nearest to the row at 4. The first takes it: squares 0.01 + 0.64, the other way round 0.81 + 0.04."""
    features = torch.tensor([[0.0], [4.0], [5.0], [9.0]])
    assert snap_group(features, torch.tensor([[8.0], [4.1], [4.2]])) == [3, 1, 2]
