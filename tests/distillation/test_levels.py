"""The level chosen by normality, where normality is known."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import DistilledSet, Prior, distill, load_images
from d3hr.distillation.levels import choose_level, knee, normal_share
from d3hr.distillation.presets import distill_settings
from d3hr.errors import SettingsError
from d3hr.prior.class_matching import match_classes
from d3hr.prior.networks import SCHEDULER_CONFIGS
from tests.conftest import MakeFolder, RecordingProgress, untrained_prior


def test_normal_share_of_known_samples() -> None:
    """Gaussian dimensions are rejected one time in twenty, two-point ones always, constant ones count as rejected."""
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(64, 4000, generator=generator)
    assert normal_share(gaussian) == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)
    two_points = gaussian.sign()
    assert normal_share(two_points) == 0.0
    assert normal_share(torch.ones(64, 10)) == 0.0
    assert normal_share(torch.cat([gaussian[:, :1000], two_points[:, :1000]], dim=1)) == pytest.approx(0.475, abs=0.03)


def test_knee_is_the_corner_of_the_curve() -> None:
    """Up in equal steps to level 3, flat after: the corner. A straight line has no corner above it: the lowest level."""
    assert knee(torch.tensor([0.0, 0.3, 0.6, 0.9, 0.9, 0.9, 0.9])) == 3
    assert knee(torch.tensor([0.2, 0.2, 0.2, 0.8, 0.81, 0.82])) == 3
    assert knee(torch.linspace(0, 1, 9)) == 1


@pytest.fixture
def root(image_folder: MakeFolder) -> Path:
    return image_folder({"ant": 12, "bee": 12, "cat": 3})


def test_the_choice_comes_with_its_evidence(root: Path) -> None:
    """One row per level with its cost: two calls per level with guidance, one without; small classes are not sampled."""
    images, prior = load_images(root), untrained_prior(("ant", "bee", "cat"))
    matches = match_classes(images.class_names, prior.class_names, of="data")
    choice = choose_level(images, prior, matches, distill_settings("paper", steps=6, statistics_level=3, denoising_level=3))
    assert [row.level for row in choice.evidence] == list(range(6))
    assert [row.calls for row in choice.evidence] == [0, 2, 4, 6, 8, 10]
    assert [row.timestep for row in choice.evidence] == [0, 166, 332, 498, 664, 830]
    assert choice.sample.startswith("24 images of 2 classes, 64 of 64 dimensions")
    assert 1 <= choice.level < 6
    assert f"level {choice.level} chosen" in choice.as_text()


def test_a_level_of_a_flow_is_chosen_too(root: Path) -> None:
    """Its times are no whole numbers."""
    images, of_noise = load_images(root), untrained_prior(("ant", "bee", "cat"))
    flow = Prior(of_noise.denoiser, of_noise.vae, SCHEDULER_CONFIGS["flow"])
    matches = match_classes(images.class_names, flow.class_names, of="data")
    choice = choose_level(images, flow, matches, distill_settings("paper", steps=6, statistics_level=3, denoising_level=3))
    assert [round(row.timestep) for row in choice.evidence] == [0, 429, 667, 818, 923, 1000]
    assert " 1000 " in choice.as_text()


def test_strides_are_counted_but_every_level_is_tested(root: Path) -> None:
    """Strides of 2 reach levels 0 to 5 with 0, 1, 1, 2, 2, 3 predictions of two calls each; the latents tested are those of stride 1."""
    images, prior = load_images(root), untrained_prior(("ant", "bee", "cat"))
    matches = match_classes(images.class_names, prior.class_names, of="data")
    settings = distill_settings("paper", steps=6, statistics_level=3, denoising_level=3)
    choice = choose_level(images, prior, matches, settings.model_copy(update={"inversion_stride": 2}))
    assert [row.calls for row in choice.evidence] == [0, 2, 2, 4, 4, 6]
    assert [row.normality for row in choice.evidence] == [row.normality for row in choose_level(images, prior, matches, settings).evidence]


def test_distil_with_the_level_left_open(root: Path, tmp_path: Path) -> None:
    """The set is the one that the chosen level gives; the evidence is reported and kept; a second call returns the set without choosing."""
    images, prior = load_images(root), untrained_prior(("ant", "bee", "cat"))
    base: dict[str, Any] = {"preset": "paper", "steps": 6, "num_candidates": 10, "ipc": 2}
    progress = RecordingProgress()
    automatic = distill(images, prior, tmp_path / "auto", level="auto", progress=progress, **base)
    kept = json.loads((tmp_path / "auto" / "level.json").read_text())
    level = automatic.manifest.settings["statistics_level"]
    assert kept["level"] == level == automatic.manifest.settings["denoising_level"]
    assert any(line.startswith(f"level {level} chosen") for line in progress.lines)
    given = distill(images, prior, tmp_path / "given", level=level, **base)
    assert torch.equal(automatic.images, given.images)
    progress.lines.clear()
    assert isinstance(distill(images, prior, tmp_path / "auto", level="auto", progress=progress, **base), DistilledSet)
    assert [line for line in progress.lines if "finished already" not in line] == []


def test_classes_too_small_to_test_are_refused(image_folder: MakeFolder, tmp_path: Path) -> None:
    images = load_images(image_folder({"ant": 4, "bee": 4}, name="small"))
    with pytest.raises(SettingsError, match="at least 8 images"):
        distill(images, untrained_prior(("ant", "bee")), tmp_path / "set", level="auto", ipc=2, num_candidates=10)
