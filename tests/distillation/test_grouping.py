import math

import pytest
import torch
from torch import Tensor

from d3hr.distillation import pool
from d3hr.distillation.grouping import draw_group, group_score, search_candidates, select_groups
from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.settings import GroupSettings
from d3hr.errors import DataError, SettingsError

D = 4096


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
    given to three digits, hence half a unit of the last digit beside three standard errors."""
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
def test_exact_std_decides_the_norm(exact_std: str, expected: float) -> None:
    """Standardised to the unbiased std, the mean squared distance from mu is (K-1)/K of a draw's; to the population std, all of it."""
    group = select_groups({"a": standard()}, 10, strategy="exact", exact_std=exact_std)["a"]
    assert float(group.square().mean()) == pytest.approx(expected, rel=1e-9)


def test_exact_of_one_image_is_not_the_mean() -> None:
    """The mean itself denoises to a flat picture; one image keeps the distance sqrt(D) of a draw, within 5 %."""
    group = select_groups({"a": standard()}, 1, strategy="exact", num_candidates=50)["a"]
    assert float(group.norm()) == pytest.approx(D**0.5, rel=0.05)


@pytest.mark.parametrize("skewness", ["per_dimension", "per_image"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_search_finds_the_best_of_its_candidates(k: int, skewness: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate drawn one by one and scored by the plain formula: the search's choice has the lowest score of all, in each class,
    although it scored a shared pool in blocks."""
    monkeypatch.setattr(pool, "BLOCK_VALUES", 16 * 30)
    settings = GroupSettings(ipc=k, num_candidates=70, skewness=skewness, seed=4)
    gaussians = {"a": some(16, 1), "b": some(16, 2)}
    found = search_candidates(gaussians, settings)
    for name, gaussian in gaussians.items():
        groups = torch.stack([draw_group(name, gaussian, settings, candidate) for candidate in range(70)])
        scores = group_score(groups, gaussian.mean, gaussian.std, skewness=skewness)
        assert float(scores[found[name]]) == pytest.approx(float(scores.min()), rel=1e-5)


def test_search_beats_random() -> None:
    gaussian = some(64, 1)
    best, one = (select_groups({"a": gaussian}, 10, strategy=strategy, num_candidates=2000)["a"] for strategy in ("search", "random"))
    assert group_score(best[None], gaussian.mean, gaussian.std) < group_score(one[None], gaussian.mean, gaussian.std)


@pytest.mark.parametrize("strategy", ["search", "exact", "random"])
def test_a_class_does_not_depend_on_the_others(strategy: str) -> None:
    gaussians = {"a": some(32, 1), "b": some(32, 2), "c": some(32, 3)}
    together = select_groups(gaussians, 4, strategy=strategy, num_candidates=100)
    alone = select_groups({"b": gaussians["b"]}, 4, strategy=strategy, num_candidates=100)
    assert torch.equal(together["b"], alone["b"])


@pytest.mark.parametrize("strategy", ["search", "exact", "random"])
def test_classes_draw_noise_of_their_own_unless_told_otherwise(strategy: str) -> None:
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
        select_groups({"a": standard(4)}, 1, strategy="best")
    with pytest.raises(DataError, match="dimensions"):
        select_groups({"a": standard(4), "b": standard(5)}, 2, num_candidates=1)
