import functools
import itertools
import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from d3hr.distillation import pool
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.grouping import draw_group, group_score, search_candidates, select_groups
from d3hr.distillation.pool import BestCandidates, PoolSearch, class_variances, draw_block, number_of_blocks, pool_scores
from d3hr.distillation.settings import ExactStd, GroupSettings, Strategy
from d3hr.errors import DataError, SettingsError

D = 4096
Skewness = Literal["per_dimension", "per_image"]
ALL_BLOCKS = range(12)
"""Those of the fixture ``small_blocks``."""


def standard(dimensions: int = D) -> ClassGaussian:
    return ClassGaussian(torch.zeros(dimensions, dtype=torch.float64), torch.ones(dimensions, dtype=torch.float64), 100)


def some(dimensions: int, seed: int) -> ClassGaussian:
    generator = torch.Generator().manual_seed(seed)
    return ClassGaussian(
        torch.randn(dimensions, generator=generator, dtype=torch.float64),
        torch.rand(dimensions, generator=generator, dtype=torch.float64) + 0.2,
        100,
    )


def terms(groups: Tensor, gaussian: ClassGaussian) -> list[Tensor]:
    weights = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    return [group_score(groups, gaussian.mean, gaussian.std, weights=weight) for weight in weights]


@pytest.mark.parametrize(("k", "expected"), [(10, (20.2, 15.0, 44.0)), (50, (9.05, 6.47, 21.5))])
def test_score_of_random_groups_is_the_known_one(k: int, expected: tuple[float, float, float]) -> None:
    """At sigma = 1: the mean term is sqrt(D/K) = 20.24 (K=10), 9.05 (K=50); std and skewness terms are the design's simulated figures,
    given to three digits, hence half a unit of the last digit on top of three standard errors."""
    groups = torch.randn(40, k, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for term, value in zip(terms(groups, standard()), expected, strict=True):
        allowance = 0.5 * 10 ** (math.floor(math.log10(value)) - 2)
        assert float(term.mean()) == pytest.approx(value, abs=3 * float(term.std()) / 40**0.5 + allowance)


def test_score_by_hand() -> None:
    """Group 0, 0, 3 against N(0, 1): mean 1; std sqrt(3); skewness 3/(2*1) * ((-1)^3 + (-1)^3 + 2^3) / 3^1.5 = sqrt(3). The score is
    1 + (sqrt(3) - 1) + sqrt(3)/2."""
    group = torch.tensor([[[0.0], [0.0], [3.0]]], dtype=torch.float64)
    score = group_score(group, torch.zeros(1), torch.ones(1))
    assert float(score) == pytest.approx(1 + (3**0.5 - 1) + 0.5 * 3**0.5)


def test_released_skewness_by_hand() -> None:
    """Each image's cubes summed over D = 3 dimensions, times 3/(2*1): three equal dimensions of 0, 0, 3 give (-1, -1, 8)/3^1.5 * 3 * 1.5,
    norm sqrt(66) * 4.5 / 3^1.5."""
    group = torch.tensor([[[0.0] * 3, [0.0] * 3, [3.0] * 3]], dtype=torch.float64)
    score = group_score(group, torch.zeros(3), torch.ones(3), weights=(0, 0, 1), skewness="per_image")
    assert float(score) == pytest.approx(66**0.5 * 4.5 / 3**1.5)


def test_small_groups_drop_the_terms_they_lack() -> None:
    """One image: the distance to the mean. Two, at +-1: mean 0, std sqrt(2), no skewness."""
    one = group_score(torch.tensor([[[3.0, 4.0]]]), torch.zeros(2), torch.ones(2))
    assert float(one) == pytest.approx(5.0)
    two = group_score(torch.tensor([[[1.0], [-1.0]]]), torch.zeros(1), torch.ones(1))
    assert float(two) == pytest.approx(2**0.5 - 1)


def test_a_dimension_without_spread_has_no_skewness() -> None:
    groups = torch.zeros(1, 4, 2)
    assert float(group_score(groups, torch.zeros(2), torch.zeros(2))) == 0


@pytest.mark.parametrize("k", [10, 50])
def test_exact_reaches_the_moments(k: int) -> None:
    """Mirrored pairs, standardised: mean, std and skewness are those of the Gaussian to rounding."""
    gaussian = some(D, 1)
    group = select_groups({"a": gaussian}, k, strategy="exact")["a"]
    mean, std, skewness = terms(group[None], gaussian)
    assert float(mean) < 1e-4
    assert float(std) < 1e-4
    assert float(skewness) < 1e-3


def test_exact_with_an_odd_number_matches_mean_and_std() -> None:
    gaussian = some(D, 1)
    mean, std, _ = terms(select_groups({"a": gaussian}, 7, strategy="exact")["a"][None], gaussian)
    assert float(mean + std) < 1e-4


@pytest.mark.parametrize(("exact_std", "expected"), [("unbiased", 0.9), ("population", 1.0)])
def test_exact_std_decides_the_norm(exact_std: ExactStd, expected: float) -> None:
    """Standardised to the unbiased std, the mean squared distance from mu is (K-1)/K of a draw's; to the population std, all of it."""
    group = select_groups({"a": standard()}, 10, strategy="exact", exact_std=exact_std)["a"]
    assert float(group.square().mean()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("exact_std", ["unbiased", "population"])
def test_exact_of_one_image_without_a_candidate_is_a_random_draw(exact_std: ExactStd) -> None:
    """One image has no spread to standardise: the draw is that of ``random``, finite and not the mean."""
    settings = GroupSettings(ipc=1, strategy="exact", exact_std=exact_std)
    drawn = draw_group("cat", some(8, 0), settings)
    assert drawn.isfinite().all()
    assert drawn.equal(draw_group("cat", some(8, 0), settings.model_copy(update={"strategy": "random"})))


def test_exact_of_one_image_is_not_the_mean() -> None:
    """The mean itself denoises to a flat image; one image keeps the distance sqrt(D) of a draw, within 5 %."""
    group = select_groups({"a": standard()}, 1, strategy="exact", num_candidates=50)["a"]
    assert float(group.norm()) == pytest.approx(D**0.5, rel=0.05)


@pytest.mark.parametrize("skewness", ["per_dimension", "per_image"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_search_finds_the_best_of_its_candidates(k: int, skewness: Skewness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate drawn one by one and scored by the plain formula: the search's choice has the lowest score of all, in each class,
    although it scored a shared pool in blocks."""
    monkeypatch.setattr(pool, "BLOCK_VALUES", 16 * 30)
    settings = GroupSettings(ipc=k, num_candidates=70, skewness=skewness, seed=4)
    gaussians = {"a": some(16, 1), "b": some(16, 2)}
    candidates = search_candidates(gaussians, settings)
    for name, gaussian in gaussians.items():
        groups = torch.stack([draw_group(name, gaussian, settings, index) for index in range(70)])
        scores = group_score(groups, gaussian.mean, gaussian.std, skewness=skewness)
        assert float(scores[candidates[name]]) == pytest.approx(float(scores.min()), rel=1e-5)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> GroupSettings:
    """Blocks of 6 candidates of 5 images, D = 16: 70 candidates fill 11 and a part of a twelfth."""
    monkeypatch.setattr(pool, "BLOCK_VALUES", 6 * 5 * 16)
    settings = GroupSettings(ipc=5, num_candidates=70, seed=4)
    assert number_of_blocks(settings, 16) == len(ALL_BLOCKS)
    return settings


def all_variances(gaussians: dict[str, ClassGaussian], settings: GroupSettings) -> Tensor:
    """sigma^2 [D, C] of classes, in the pool's order."""
    return torch.stack([class_variances(name, gaussian, settings) for name, gaussian in gaussians.items()], dim=1)


def same(one: BestCandidates, other: BestCandidates) -> bool:
    return torch.equal(one.scores, other.scores) and torch.equal(one.indices, other.indices)


@pytest.mark.parametrize("cuts", [[0, 12], [0, 1, 12], [0, 5, 5, 9, 12], list(range(13))])
def test_blocks_may_be_shared_out_in_any_way(cuts: list[int], small_blocks: GroupSettings) -> None:
    """Ranges searched apart and merged, forwards or backwards, give the scores and winners of the whole, bit for bit."""
    variances = all_variances({name: some(16, seed) for seed, name in enumerate("abcdefgh")}, small_blocks)
    whole = PoolSearch(variances, small_blocks).search(ALL_BLOCKS)
    ranges = [PoolSearch(variances, small_blocks).search(range(start, stop)) for start, stop in itertools.pairwise(cuts)]
    assert same(functools.reduce(BestCandidates.merge, ranges), whole)
    assert same(functools.reduce(BestCandidates.merge, reversed(ranges)), whole)
    assert whole.indices.unique().numel() > 1


def test_of_equal_candidates_the_first_wins() -> None:
    one, other = (BestCandidates(torch.tensor([1.0, 2.0, 1.0]), torch.tensor(candidates)) for candidates in ([7, 7, 7], [3, 9, 9]))
    other = other._replace(scores=torch.tensor([1.0, 2.0, 0.5]))
    for best in (one.merge(other), other.merge(one)):
        assert best.indices.tolist() == [3, 7, 9]
        assert best.scores.tolist() == [1.0, 2.0, 0.5]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_memory_budget_changes_no_result(threads: int, small_blocks: GroupSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """From no block ahead, with 0 bytes, to as many as two threads make use of."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    variances = all_variances({"a": some(16, 1), "b": some(16, 2)}, small_blocks)
    block = 4 * 6 * 5 * 16
    results = [PoolSearch(variances, small_blocks, budget).search(ALL_BLOCKS) for budget in (None, 0, 5 * block, 7 * block)]
    assert all(same(result, results[0]) for result in results)


def test_scoring_in_parts_changes_no_winner(small_blocks: GroupSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many classes a block is scored in parts: here four candidates, then two."""
    variances = all_variances({name: some(16, seed) for seed, name in enumerate("abcd")}, small_blocks)
    whole = PoolSearch(variances, small_blocks).search(ALL_BLOCKS)
    monkeypatch.setattr(pool, "MAX_SCORES", 16)
    parts = PoolSearch(variances, small_blocks).search(ALL_BLOCKS)
    assert torch.equal(parts.indices, whole.indices)
    assert torch.allclose(parts.scores, whole.scores, rtol=1e-6)


@pytest.mark.parametrize("skewness", ["per_dimension", "per_image"])
@pytest.mark.parametrize("k", [1, 2, 3, 10, 50])
def test_pool_scores_are_those_of_the_groups(k: int, skewness: Skewness) -> None:
    """In float32, by matrix products and in parts of a block: within 1e-5 of the plain formula in float64 on the groups drawn."""
    settings = GroupSettings(ipc=k, skewness=skewness, seed=3)
    gaussians = {"a": some(2048, 1), "b": some(2048, 2)}
    scores = pool_scores(draw_block(0, settings, 2048)[:30], all_variances(gaussians, settings), settings)
    for index, (name, gaussian) in enumerate(gaussians.items()):
        groups = torch.stack([draw_group(name, gaussian, settings, candidate) for candidate in (0, 7, 29)])
        expected = group_score(groups, gaussian.mean, gaussian.std, skewness=skewness)
        assert torch.allclose(scores[[0, 7, 29], index].double(), expected, rtol=1e-5)


def test_close_images_do_not_spoil_the_skewness() -> None:
    """1 + e, 1 + e, 1 + 4e for e = 2^-18: sums of cubes in float32 would have no digit left of the skewness, sqrt(3) in each of 4
    dimensions (as by hand above), norm 2 sqrt(3). A dimension without spread has none."""
    settings = GroupSettings(ipc=3, weights=(0.0, 0.0, 1.0))
    close = (1 + torch.tensor([1.0, 1.0, 4.0]) * 2.0**-18)[None, :, None].expand(1, 3, 4)
    assert float(pool_scores(close, torch.ones(4, 1), settings)) == pytest.approx(12**0.5, rel=1e-2)
    assert float(pool_scores(torch.ones(1, 3, 4), torch.ones(4, 1), settings)) == 0


def test_search_beats_random() -> None:
    gaussian = some(64, 1)
    best, one = (select_groups({"a": gaussian}, 10, strategy=strategy, num_candidates=2000)["a"] for strategy in ("search", "random"))
    assert group_score(best[None], gaussian.mean, gaussian.std) < group_score(one[None], gaussian.mean, gaussian.std)


@pytest.mark.parametrize("strategy", ["search", "exact", "random"])
def test_a_class_does_not_depend_on_the_others(strategy: Strategy) -> None:
    gaussians = {"a": some(32, 1), "b": some(32, 2), "c": some(32, 3)}
    together = select_groups(gaussians, 4, strategy=strategy, num_candidates=100)
    alone = select_groups({"b": gaussians["b"]}, 4, strategy=strategy, num_candidates=100)
    assert torch.equal(together["b"], alone["b"])


@pytest.mark.parametrize("strategy", ["search", "exact", "random"])
def test_classes_draw_noise_of_their_own_by_default(strategy: Strategy) -> None:
    gaussians = {"a": standard(32), "b": standard(32)}
    own = select_groups(gaussians, 4, strategy=strategy, num_candidates=1)
    same = select_groups(gaussians, 4, strategy=strategy, num_candidates=1, seed_by_class=False)
    assert not torch.allclose(own["a"], own["b"])
    assert torch.equal(same["a"], same["b"])


def test_seed_changes_the_draw() -> None:
    groups = [select_groups({"a": standard(32)}, 4, num_candidates=10, seed=seed)["a"] for seed in (0, 0, 1)]
    assert torch.equal(groups[0], groups[1])
    assert not torch.equal(groups[0], groups[2])


def test_bad_settings_name_the_flag() -> None:
    with pytest.raises(SettingsError, match="--ipc"):
        select_groups({"a": standard(4)}, 0)
    with pytest.raises(SettingsError, match="--strategy"):
        select_groups({"a": standard(4)}, 1, strategy="best")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="dimensions"):
        select_groups({"a": standard(4), "b": standard(5)}, 2, num_candidates=1)


@pytest.mark.parametrize("strategy", ["search", "exact", "random"])
def test_groups_have_the_covariance_of_their_class(strategy: Strategy) -> None:
    """In a class whose dimensions move together, by any strategy: all of the spread along one direction, none across it. `exact` has its
    mean, and its variance along it."""
    direction = torch.tensor([[3.0, 4.0, 0.0]], dtype=torch.float64)
    gaussian = ClassGaussian(torch.ones(3, dtype=torch.float64), direction[0].abs(), 10, 1, direction)
    group = select_groups({"ant": gaussian}, 6, strategy=strategy, num_candidates=50)["ant"] - 1
    along = group @ direction[0] / 5
    torch.testing.assert_close(group, along[:, None] * direction / 5)
    assert 2 < along.std() < 9
    if strategy == "exact":
        assert (along.mean().item(), along.std().item()) == pytest.approx((0, 5))


@pytest.mark.parametrize("strategy", ["search", "exact", "random"])
def test_temperature_scales_the_distance_from_the_mean(strategy: Strategy) -> None:
    """The same group, drawn together towards the mean; at zero it is the mean."""
    gaussian = some(40, 1)
    whole, half, none = (
        select_groups({"ant": gaussian}, 4, strategy=strategy, num_candidates=20, temperature=temperature)["ant"]
        for temperature in (1.0, 0.5, 0.0)
    )
    torch.testing.assert_close(half - gaussian.mean, 0.5 * (whole - gaussian.mean))
    torch.testing.assert_close(none, gaussian.mean.expand(4, 40))
    assert search_candidates({"ant": gaussian}, GroupSettings(temperature=0)) == {}  # nothing is searched among groups that are all one
