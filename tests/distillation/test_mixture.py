from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d3hr import DistilledSet, ImageData, Prior, distill, load_images
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.grouping import draw_group, draw_mixture, mode_name, search_candidates, search_mixtures
from d3hr.distillation.mixture import ClassMixture, k_means_centres, largest_remainders, nearest_centres
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import GroupSettings
from d3hr.errors import DataError, SettingsError
from d3hr.execution.base import Execution
from d3hr.execution.processes import WorkerProcesses
from d3hr.pipeline import expand
from d3hr.seeds import derive_seed
from d3hr.sets.statistics import StoredMixtures, write_mixtures
from tests.conftest import MakeFolder, tree, untrained_prior

QUICK: dict[str, Any] = {"steps": 6, "statistics_level": 3, "denoising_level": 3, "num_candidates": 50, "inversion_guidance": 1.0}


def gaussian(mean: float, std: float, count: int, dimensions: int = 6) -> ClassGaussian:
    ones = torch.ones(dimensions, dtype=torch.float64)
    return ClassGaussian(mean * ones, std * ones, count)


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([5, 3, 2], 10, (5, 3, 2)),
        ([1, 1, 1], 2, (1, 1, 0)),
        ([7, 2, 1], 4, (3, 1, 0)),  # 2.8, 0.8, 0.4: two whole, then the largest remainders
        ([1, 0, 3], 1, (0, 0, 1)),
        ([10**12 + 1, 10**12], 1, (1, 0)),
    ],
)
def test_images_are_shared_out_by_largest_remainders(weights: list[int], total: int, expected: tuple[int, ...]) -> None:
    assert largest_remainders(weights, total) == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_class_of_no_latents_is_refused(temperature: float) -> None:
    """By name, not by a division by zero."""
    settings = GroupSettings(ipc=2, strategy="random", temperature=temperature)
    for draw in (
        lambda: draw_mixture("cat", ClassMixture.empty(6, 3), settings, {}),
        lambda: search_mixtures({"cat": ClassMixture.empty(6, 3)}, settings),
    ):
        with pytest.raises(DataError, match="'cat' has no statistics"):
            draw()


def test_modes_together_are_the_class() -> None:
    """Whatever latent belongs to which mode, and in whatever parts they are seen, the whole is the Gaussian of all."""
    latents = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assignment = torch.arange(40) % 3
    mixture = (
        ClassMixture.empty(6, 4).update(latents[:11], assignment[:11]).merge(ClassMixture.empty(6, 4).update(latents[11:], assignment[11:]))
    )
    assert [mode.count for mode in mixture.modes] == [14, 13, 13, 0]
    assert (mixture.count, mixture.dimensions) == (40, 6)
    torch.testing.assert_close(mixture.modes[1].mean, latents[assignment == 1].mean(0))
    torch.testing.assert_close(mixture.modes[1].std, latents[assignment == 1].std(0))
    torch.testing.assert_close(mixture.pooled.mean, latents.mean(0))
    torch.testing.assert_close(mixture.pooled.std, latents.std(0))


def test_a_group_comes_from_the_modes_in_their_shares() -> None:
    """Modes at -100 and 100 of weights 3 and 1: three and one of four images, each mode's group with its own moments; of two
    images the shares are 1.5 and 0.5, and the first mode gets the odd one."""
    mixture = ClassMixture((gaussian(-100, 1, 30), gaussian(100, 2, 10)))
    settings = GroupSettings(ipc=4, strategy="exact")
    group = draw_mixture("ant", mixture, settings, search_mixtures({"ant": mixture}, settings.model_copy(update={"num_candidates": 10})))
    assert (group[:, 0] > 0).tolist() == [False, False, False, True]
    torch.testing.assert_close(group[:3].mean(0), torch.full((6,), -100.0, dtype=torch.float64))
    torch.testing.assert_close(group[:3].std(0), torch.ones(6, dtype=torch.float64))
    two = draw_mixture("ant", mixture, GroupSettings(ipc=2, strategy="random"), {})
    assert (two[:, 0] > 0).tolist() == [False, False]


def test_at_temperature_zero_no_mode_gives_its_mean_twice() -> None:
    """A mode of nine tenths of the latents would get both of two images by its weight: the two heaviest get one each, in their order. Where
    too few modes have latents at all the class is named."""
    mixture = ClassMixture((gaussian(1, 1, 0), gaussian(2, 1, 4), gaussian(3, 1, 90), gaussian(4, 1, 6)))
    settings = GroupSettings(ipc=2, temperature=0, num_candidates=10)
    group = draw_mixture("ant", mixture, settings, search_mixtures({"ant": mixture}, settings))
    assert group[:, 0].tolist() == [3.0, 4.0]
    four = settings.model_copy(update={"ipc": 4})
    with pytest.raises(DataError, match=r"'ant'(.|\n)*3 modes(.|\n)*4 images"):
        search_mixtures({"ant": mixture}, four)


def test_each_mode_is_searched_among_groups_of_its_size() -> None:
    """The modes of two classes that get two images are searched together, those that get one apart; the first mode draws as a class of
    one mode does."""
    mixtures = {
        "ant": ClassMixture((gaussian(0, 1, 20), gaussian(5, 1, 10))),
        "bee": ClassMixture((gaussian(1, 2, 10), gaussian(3, 1, 20))),
    }
    settings = GroupSettings(ipc=3, num_candidates=40)
    candidates = search_mixtures(mixtures, settings)
    pairs = {mode_name("ant", 0): mixtures["ant"].modes[0], mode_name("bee", 1): mixtures["bee"].modes[1]}
    singles = {mode_name("ant", 1): mixtures["ant"].modes[1], mode_name("bee", 0): mixtures["bee"].modes[0]}
    two, one = (settings.model_copy(update={"ipc": ipc}) for ipc in (2, 1))
    assert candidates == {**search_candidates(pairs, two), **search_candidates(singles, one)}
    group = draw_mixture("ant", mixtures["ant"], settings, candidates)
    assert torch.equal(group[:2], draw_group("ant", mixtures["ant"].modes[0], two, candidates["ant"]))
    assert mode_name("ant", 0) == "ant"


def test_centres_and_the_nearest() -> None:
    """Three tight clusters are found, each latent goes to its own; of two centres at one place the first takes all."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    latents = corners.repeat_interleave(20, 0) + 0.1 * torch.randn(60, 2, generator=generator)
    centres = torch.from_numpy(k_means_centres(latents, 3, seed=0))
    nearest = nearest_centres(latents, centres).view(3, 20)
    assert (nearest == nearest[:, :1]).all() and sorted(nearest[:, 0].tolist()) == [0, 1, 2]
    np.testing.assert_allclose(centres[nearest[:, 0]].numpy(), corners.numpy(), atol=0.1)
    assert nearest_centres(latents[:2], torch.zeros(2, 2)).tolist() == [0, 0]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What workers have, whose last bits are to be compared with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Execution]:
    """Two worker processes, which take seconds to start, once for all tests."""
    with WorkerProcesses(2).session() as execution:
        yield execution


@pytest.fixture
def small(image_folder: MakeFolder, tmp_path: Path) -> tuple[ImageData, Prior]:
    images = load_images(image_folder({"ant": 9, "bee": 3, "cat": 5}))
    untrained_prior(("ant", "bee", "cat")).save_pretrained(tmp_path / "prior")
    return images, Prior.from_pretrained(tmp_path / "prior")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_set_of_several_modes(small: tuple[ImageData, Prior], two_workers: Execution, tmp_path: Path) -> None:
    """Every image belongs to one mode of its class; the class's whole is what one mode measures; the set loads, expand repeats it, and
    two workers make the same bytes. Bee has three images and so three modes of one image, and an empty one."""
    images, prior = small
    distilled = distill(images, prior, tmp_path / "set", ipc=4, modes=4, **QUICK)
    one = distill(images, prior, tmp_path / "one", ipc=4, **QUICK)
    assert [sum(mode.count for mode in distilled.mixtures[name].modes) for name in distilled.class_names] == [9, 3, 5]
    assert [mode.count for mode in distilled.mixtures["bee"].modes] == [1, 1, 1, 0]
    for name in distilled.class_names:
        assert len(distilled.mixtures[name].modes) == 4
        torch.testing.assert_close(distilled.statistics[name].mean, one.statistics[name].mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(distilled.statistics[name].std, one.statistics[name].std, rtol=1e-4, atol=1e-4)
    assert not torch.equal(distilled.images, one.images)
    loaded = DistilledSet.load(distilled.path)
    assert (loaded.manifest.settings["modes"], one.manifest.settings["modes"]) == (4, 1)
    assert torch.equal(expand(loaded, prior, tmp_path / "again", ipc=4).images, distilled.images)
    shared = distill(images, prior, tmp_path / "workers", ipc=4, modes=4, execution=two_workers, **QUICK)
    assert tree(shared.path) == tree(distilled.path)
    with pytest.raises(SettingsError, match="decides the statistics"):
        expand(loaded, prior, tmp_path / "other", ipc=4, modes=2)  # type: ignore[call-arg]


def test_statistics_read_are_written_again_to_the_same_bytes(tmp_path: Path) -> None:
    """What a set is drawn from is read from one file and written to another: expand must find it there to the last bit."""
    latents = torch.randn(60, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture = ClassMixture.empty(40, 2, rank=9).update(latents, torch.arange(60) % 2).truncate_rank()
    first, second = tmp_path / "first", tmp_path / "second"
    write_mixtures(first, [mixture])
    write_mixtures(second, StoredMixtures(first, ["a class"], modes=2, rank=9).values())
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("modes", [1, 2])
def test_a_set_of_some_rank(small: tuple[ImageData, Prior], two_workers: Execution, modes: int, tmp_path: Path) -> None:
    """The covariance of all images of a class is kept with mean and spread, and read again: expand repeats the set, and two workers
    make the same bytes."""
    images, prior = small
    distilled = distill(images, prior, tmp_path / "set", ipc=4, rank=7, modes=modes, **QUICK)
    loaded = DistilledSet.load(distilled.path)
    assert (loaded.manifest.settings["rank"], loaded.mixtures["ant"].rank) == (7, 7)
    loadings = loaded.mixtures["ant"].modes[0].loadings
    assert loadings is not None and loadings.shape == (7, loaded.mixtures["ant"].dimensions)
    plain = distill(images, prior, tmp_path / "plain", ipc=4, modes=modes, **QUICK)
    assert plain.manifest.settings["rank"] == 0
    for name in distilled.class_names:
        for one, other in zip(distilled.mixtures[name].modes, plain.mixtures[name].modes, strict=True):
            assert torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)
    assert not torch.equal(distilled.images, plain.images)
    assert torch.equal(expand(loaded, prior, tmp_path / "again", ipc=4).images, distilled.images)
    shared = distill(images, prior, tmp_path / "workers", ipc=4, rank=7, modes=modes, execution=two_workers, **QUICK)
    assert tree(shared.path) == tree(distilled.path)


def test_modes_are_those_of_clean_latents(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """A mode's count is that of the cluster of the encoded images, as found by hand."""
    images, prior = small
    distilled = distill(images, prior, tmp_path / "set", modes=2, store="statistics", **QUICK)
    clean = prior.encode(torch.cat(list(images.batches("ant")))).flatten(1)
    assignment = nearest_centres(clean, torch.from_numpy(k_means_centres(clean, 2, derive_seed("modes", "ant"))))
    assert [mode.count for mode in distilled.mixtures["ant"].modes] == torch.bincount(assignment, minlength=2).tolist()


def test_the_number_of_modes_is_bounded() -> None:
    with pytest.raises(SettingsError, match="modes"):
        distill_settings("paper", modes=0)
    with pytest.raises(SettingsError, match="modes"):
        distill_settings("paper", modes=1001)
