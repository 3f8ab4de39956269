"""The tasks of a distillation: which they are, and that it does not matter where or in which order they run."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import ClassGaussian, DistilledSet, ImageData, Prior, distill, expand, invert, load_images
from d3hr.distillation.chunks import ClassChunk, ClassChunks
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.tasks import StatisticsEstimator
from d3hr.errors import OutputError, SettingsError
from d3hr.execution.base import Result, Task, Work
from d3hr.execution.processes import WorkerProcesses
from d3hr.seeds import generator_for
from tests.conftest import MakeFolder, tree, untrained_prior

QUICK: dict[str, Any] = {"steps": 6, "statistics_level": 3, "denoising_level": 3, "num_candidates": 50, "ipc": 2}


class Backwards:
    """Runs the last task first."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        run_task = work.open()
        for index in reversed(range(len(tasks))):
            yield index, run_task(tasks[index])

    def session(self) -> AbstractContextManager["Backwards"]:
        return nullcontext(self)


@pytest.fixture
def small(image_folder: MakeFolder) -> tuple[ImageData, Prior]:
    return load_images(image_folder({"ant": 20, "bee": 5, "cat": 4})), untrained_prior(("ant", "bee", "cat"))


def test_classes_are_cut_into_chunks_of_eight_batches(small: tuple[ImageData, Prior]) -> None:
    images, prior = small

    def chunks(**changes: Any) -> list[ClassChunk]:
        estimator = StatisticsEstimator(images, prior, distill_settings("paper", batch_size=1, **changes), prior.conditions(["ant"]))
        return list(ClassChunks({"ant": estimator.division("ant")}))

    assert chunks() == [ClassChunk("ant", 0, 8), ClassChunk("ant", 8, 16), ClassChunk("ant", 16, 20)]
    assert chunks(max_images_per_class=12) == [ClassChunk("ant", 0, 12)]
    assert chunks(tolerance=0.1) == chunks(forward_process="forward_noise") == [ClassChunk("ant", 0, 20)]


@pytest.mark.slow
def test_the_order_of_the_tasks_changes_nothing(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    images, prior = small
    usual = distill(images, prior, tmp_path / "usual", batch_size=1, **QUICK)
    other = distill(images, prior, tmp_path / "other", batch_size=1, execution=Backwards(), **QUICK)
    assert tree(usual.path) == tree(other.path)


@pytest.mark.slow
def test_worker_processes_make_the_same_set(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Statistics, search and drawing by two workers of one thread: the bytes of one thread here."""
    folder = image_folder({"ant": 20, "bee": 5, "cat": 4})
    untrained_prior(("ant", "bee", "cat")).save_pretrained(tmp_path / "prior")
    images, prior = load_images(folder), Prior.from_pretrained(tmp_path / "prior")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = distill(images, prior, tmp_path / "here", batch_size=1, **QUICK)
    finally:
        torch.set_num_threads(threads)
    by_workers = distill(images, prior, tmp_path / "workers", batch_size=1, execution=WorkerProcesses(2), **QUICK)
    assert tree(by_workers.path) == tree(here.path)


def test_chunks_together_are_the_class(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """Mean and spread of 20 images in three chunks are those of all latents at once."""
    images, prior = small
    distilled = distill(images, prior, tmp_path / "set", batch_size=1, **QUICK)
    clean = prior.encode(torch.cat(list(images.batches("ant"))))
    latents = invert(prior, clean, torch.zeros(20).long(), level=3, steps=6).flatten(1).double()
    torch.testing.assert_close(distilled.statistics["ant"].mean, latents.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(distilled.statistics["ant"].std, latents.std(0), rtol=1e-5, atol=1e-5)
    assert distilled.manifest.classes[0].sample is None


def test_a_sample_is_random_and_nested_and_the_manifest_states_its_errors(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """Seven of twenty ants: the first seven of a permutation that follows from seed and class name; the manifest states the errors,
    sqrt((1 - 7/20) / 7) for the mean. A class of fewer is seen whole."""
    images, prior = small
    distilled = distill(images, prior, tmp_path / "set", max_images_per_class=7, batch_size=3, **QUICK)
    order = torch.randperm(20, generator=generator_for(0, "subsample", "ant"))
    clean = prior.encode(images.pick("ant", order[:7]))
    latents = invert(prior, clean, torch.zeros(7).long(), level=3, steps=6).flatten(1)
    torch.testing.assert_close(distilled.statistics["ant"].mean, ClassGaussian.empty(64).update(latents).mean, rtol=1e-5, atol=1e-5)
    ant, bee, _ = distilled.manifest.classes
    assert ant.sample is not None and bee.sample is not None
    assert (ant.real_images, ant.sample.images) == (20, 7)
    assert ant.sample.mean_error == pytest.approx(((1 - 7 / 20) / 7) ** 0.5)
    assert (bee.sample.images, bee.sample.mean_error, bee.sample.std_error) == (5, 0.0, 0.0)
    assert "7 of 20" in (distilled.path / "README.md").read_text()
    settings = DistilledSet.load(distilled.path).manifest.settings
    assert (settings["max_images_per_class"], settings["sample_seed"]) == (7, 0)


@pytest.mark.slow
def test_sets_of_other_seeds_have_samples_of_their_own(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """Unless the sample's seed is given. Where no class has more images, nothing is drawn, and the statistics are those without a limit.
    What is expanded keeps the sample, and is not the set that another seed distils."""
    images, prior = small
    few: dict[str, Any] = {"batch_size": 3, "store": "statistics", **QUICK}

    def mean(folder: str, **changes: Any) -> torch.Tensor:
        return distill(images, prior, tmp_path / folder, **few, **changes).statistics["ant"].mean

    first, other = (mean(f"seed {seed}", seed=seed, max_images_per_class=7) for seed in (0, 1))
    assert not first.equal(other)
    assert mean("fixed", seed=1, sample_seed=0, max_images_per_class=7).equal(first)
    assert mean("whole", seed=0, max_images_per_class=20).equal(mean("all", seed=1))
    assert DistilledSet.load(tmp_path / "whole").manifest.settings["sample_seed"] is None
    expanded = expand(DistilledSet.load(tmp_path / "seed 0"), prior, tmp_path / "expanded", ipc=1, seed=1)
    assert (expanded.manifest.settings["seed"], expanded.manifest.settings["sample_seed"]) == (1, 0)
    with pytest.raises(OutputError):
        distill(images, prior, tmp_path / "expanded", **{**few, "store": "images", "ipc": 1}, seed=1, max_images_per_class=7)
    with pytest.raises(SettingsError, match="--sample-seed has no effect"):
        distill_settings("paper", sample_seed=1)


@pytest.mark.slow
def test_a_tolerance_stops_where_both_errors_are_below(small: tuple[ImageData, Prior], tmp_path: Path) -> None:
    """At 0.2 the mean needs 1 / (0.04 + 1/20) = 11.1 images, so 12 in batches of 2, if the spread's error allows; all are never needed."""
    images, prior = small
    distilled = distill(images, prior, tmp_path / "set", tolerance=0.2, batch_size=2, **QUICK)
    ant = distilled.manifest.classes[0].sample
    assert ant is not None and 12 <= ant.images < 20
    assert max(ant.mean_error, ant.std_error) <= 0.2
    assert distilled.statistics["ant"].count == ant.images
    strict = distill(images, prior, tmp_path / "strict", tolerance=0.01, batch_size=2, **QUICK)
    assert strict.manifest.classes[0].sample == ant.model_copy(update={"images": 20, "mean_error": 0.0, "std_error": 0.0})
