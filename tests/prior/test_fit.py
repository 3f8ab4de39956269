import csv
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import diffusers
import pytest
import torch

from d3hr import ImageData, Prior, fit_prior, load_images
from d3hr.errors import OutputError, SettingsError
from d3hr.prior import trainer
from tests.conftest import MakeFolder, tree
from tests.processes import kill, start, wait_for

pytestmark = pytest.mark.usefixtures("small_networks")


def fit(digits: ImageData, out: Path, **changes: Any) -> Prior:
    return fit_prior(digits, out, **{"steps": 12, "autoencoder_steps": 8, **changes})


def test_a_fitted_prior_is_a_whole_folder(digits: ImageData, tmp_path: Path) -> None:
    """DiTPipeline parts, loss curves and figures are there, the work is gone; latents have unit scale; training moved the networks."""
    prior = fit(digits, tmp_path / "prior")
    assert prior.class_names == digits.class_names
    assert sorted(path.name for path in (tmp_path / "prior").iterdir()) == [
        "SHA256SUMS", "fit.json", "loss.csv", "model_index.json", "run.json", "scheduler", "transformer", "vae",
    ]  # fmt: skip
    with (tmp_path / "prior" / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["network"]: row["step"] for row in rows} == {"autoencoder": "8", "transformer": "12"}
    assert json.loads((tmp_path / "prior" / "fit.json").read_text())["steps"] == {"autoencoder": 8, "transformer": 12}
    latents = prior.encode(digits.gather(range(0, 1197, 3))[0])
    assert float(latents.square().mean().sqrt()) == pytest.approx(1, rel=0.02)
    assert prior.predict_noise(latents[:2], 500, torch.tensor([0, 1])).any()
    before = tree(tmp_path / "prior")
    fit(digits, tmp_path / "prior")
    assert tree(tmp_path / "prior") == before


@pytest.mark.parametrize(
    ("side", "latent"), [(16, 8), pytest.param(32, 8, marks=pytest.mark.slow), pytest.param(64, 8, marks=pytest.mark.slow)]
)
def test_a_compact_prior_opens_in_diffusers(side: int, latent: int, image_folder: MakeFolder, tmp_path: Path) -> None:
    """The autoencoder folds pixels into channels, whatever the side; latents have unit scale and DiTPipeline draws from the folder."""
    images = load_images(image_folder({"ant": 6, "bee": 6}, size=side))
    prior = fit_prior(images, tmp_path / "prior", preset="compact", steps=1, autoencoder_steps=2, batch_size=4)
    assert (prior.image_size, prior.latent_shape) == (side, (8, latent, latent))
    pictures = next(images.batches("ant"))
    latents = prior.encode(pictures)
    assert latents.shape == (6, 8, latent, latent)
    assert 0.5 < float(latents.square().mean().sqrt()) < 2
    assert prior.decode(latents).shape == pictures.shape
    assert torch.equal(Prior.from_pretrained(tmp_path / "prior").encode(pictures), latents)
    pipeline = diffusers.DiTPipeline.from_pretrained(tmp_path / "prior")
    drawn = pipeline([0], guidance_scale=1, num_inference_steps=2, output_type="np").images
    assert drawn.shape == (1, side, side, 3)


@pytest.mark.slow
def test_loss_falls(digits: ImageData, tmp_path: Path) -> None:
    fit(digits, tmp_path / "prior", steps=150, autoencoder_steps=60)
    with (tmp_path / "prior" / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    for network in ("autoencoder", "transformer"):
        losses = [float(row["loss"]) for row in rows if row["network"] == network]
        assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.slow
def test_time_limit_ends_the_fit(digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number of steps as many are made as fit into the time, and the loss curve ends with the last. The clock moves on by 0.1 s
    whenever it is read, at least once a step, so that fewer than 60 steps fit into 6 s."""
    clock = itertools.count()
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: 0.1 * next(clock)))
    fit_prior(digits, tmp_path / "prior", max_minutes=0.1)
    steps = json.loads((tmp_path / "prior" / "fit.json").read_text())["steps"]
    assert 5 < steps["transformer"] < 60
    with (tmp_path / "prior" / "loss.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)][-1] == str(steps["transformer"])


@pytest.mark.slow
def test_a_time_that_the_autoencoder_has_used_up_ends_the_fit(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_networks: None
) -> None:
    """A step of a large autoencoder may take longer than all the time, and must end all the same."""
    clock = itertools.count()
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: 0.1 * next(clock)))
    fit_prior(digits, tmp_path / "prior", max_minutes=0.001, steps=20)
    assert json.loads((tmp_path / "prior" / "fit.json").read_text())["steps"]["transformer"] < 2


@pytest.mark.slow
def test_bf16_fits(digits: ImageData, tmp_path: Path) -> None:
    assert torch.isfinite(fit(digits, tmp_path / "prior", precision="bf16").encode(digits[0][0][None])).all()


def test_bad_settings_are_refused(digits: ImageData, tmp_path: Path) -> None:
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"preset": "huge"}, "tiny, compact, small, base"),
        ({"steps": 0}, "--steps"),
        ({"autoencoder_steps": -1}, "--autoencoder-steps"),
        ({"max_minutes": 0}, "--max-minutes"),
        ({"image_size": 64}, "8 to 32 pixels"),
        ({"image_size": 9}, "multiple of 2"),
    ]
    for changes, words in refusals:
        with pytest.raises(SettingsError, match=words):
            fit(digits, tmp_path / "prior", **changes)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("x")
    with pytest.raises(OutputError, match="never overwrites"):
        fit(digits, tmp_path / "taken")


def fit_with_checkpoints(out: Path) -> int:
    """Fit with a checkpoint after every step."""
    with patch.object(trainer, "CHECKPOINT_SECONDS", -1.0):
        fit_prior(load_images("digits", split="validation"), out, steps=20, autoencoder_steps=4)
    return 0


@pytest.mark.slow
def test_a_killed_fit_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL once the transformer has a checkpoint; the second sitting gives the bytes of an undisturbed fit."""
    monkeypatch.undo()
    few = load_images("digits", split="validation")
    fit_prior(few, tmp_path / "whole", steps=20, autoencoder_steps=4)
    process = start(fit_with_checkpoints, tmp_path / "killed", log=tmp_path / "log")
    wait_for((tmp_path / "killed.partial" / "checkpoints" / "transformer.safetensors").exists, process)
    kill(process)
    assert not (tmp_path / "killed").exists()
    fit_prior(few, tmp_path / "killed", steps=20, autoencoder_steps=4)
    for part in ("vae", "transformer"):
        assert tree(tmp_path / "killed" / part) == tree(tmp_path / "whole" / part)
