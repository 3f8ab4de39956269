import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import d3hr
from d3hr import Prior
from d3hr.cli.options import Loading
from d3hr.data.dataset import ImageData
from d3hr.errors import ClassMismatch, PriorError, SettingsError
from d3hr.prior.families.pixel import PixelUNet
from d3hr.prior.pixels import Pixels
from d3hr.prior.repository import Repository, Variant
from d3hr.prior.schedules.variance_preserving import VariancePreserving
from tests.conftest import RecordingProgress
from tests.prior.small_priors import CLASSES, pixel_pipeline, unet

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline as diffusers' own examples save it: no classes, clipping."""
    return pixel_pipeline(tmp_path / "ddpm", unet())


def test_pixels_are_their_own_latents(folder: Path) -> None:
    prior = Prior.from_pretrained(folder, dtype=torch.bfloat16)
    assert torch.equal(prior.encode(IMAGES), IMAGES)
    assert torch.equal(prior.decode(IMAGES), IMAGES)
    assert torch.equal(prior.decode(5 * IMAGES), (5 * IMAGES).clamp(-1, 1))


def test_a_grey_model_sees_means_and_shows_them(tmp_path: Path) -> None:
    prior = Prior.from_pretrained(pixel_pipeline(tmp_path / "grey", unet(channels=1)))
    latents = prior.encode(IMAGES)
    torch.testing.assert_close(latents, (IMAGES[:, :1] + IMAGES[:, 1:2] + IMAGES[:, 2:]) / 3)
    torch.testing.assert_close(prior.decode(latents), latents.repeat(1, 3, 1, 1))


def test_the_noise_is_what_diffusers_predicts(folder: Path) -> None:
    theirs = diffusers.DDPMPipeline.from_pretrained(folder).unet
    prior = Prior.from_pretrained(folder)
    with torch.no_grad():
        expected = theirs(IMAGES, 620).sample
    torch.testing.assert_close(prior.predict_noise(IMAGES, 620, prior.conditions(CLASSES)["ant"]), expected)


def test_clipping_is_left_out_and_said(folder: Path, tmp_path: Path) -> None:
    """diffusers' DDPMScheduler clips by default. The schedule is the same with and without; the copy that d3hr saves clips again."""
    clips = Prior.from_pretrained(folder)
    plain = Prior.from_pretrained(pixel_pipeline(tmp_path / "plain", unet(), clip_sample=False))
    assert isinstance(clips.schedule, VariancePreserving)
    assert clips.fingerprint == plain.fingerprint
    assert plain.denoiser.notes == ()
    progress = RecordingProgress()
    Loading().load(str(folder), progress)
    assert progress.lines == [f"{folder}: clip_sample of its sampler is left out, since no inversion undoes it"]
    clips.save_pretrained(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "scheduler" / "scheduler_config.json").read_text())["clip_sample"] is True
    assert diffusers.DDPMPipeline.from_pretrained(tmp_path / "copy").scheduler.__class__.__name__ == "DDPMScheduler"


def test_without_a_label_table_every_class_is_drawn_alike(folder: Path) -> None:
    prior = Prior.from_pretrained(folder)
    (ant, bee) = prior.denoiser.match(["ant", "bee"], of="the data")
    assert (ant.conditioning_id, ant.prior_class, ant.how, bee.class_name) == (None, "", "nothing", "bee")
    assert PixelUNet.match_in(Repository(str(folder)), Variant(), ["ant", "bee"], of="the data") == (ant, bee)
    assert prior.conditions(["ant"])["ant"].key is None
    with pytest.raises(SettingsError, match="text-to-image"):
        PixelUNet.match_in(Repository(str(folder)), Variant(prompt="a {name}"), ["ant", "bee"], of="the data")
    with pytest.raises(SettingsError, match="leave --class-map out"):
        prior.conditions(["ant"], class_map={"ant": "0"})
    with pytest.raises(SettingsError, match="no label table"):
        prior.predict_noise(IMAGES, 0, torch.tensor([0, 0]))


def test_classes_of_a_label_table_have_names_or_numbers(tmp_path: Path) -> None:
    numbered = Prior.from_pretrained(pixel_pipeline(tmp_path / "numbered", unet(rows=3)))
    assert numbered.class_names == ("0", "1", "2")
    assert numbered.conditions(["x"], class_map={"x": "2"})["x"].key == 2
    named = Prior.from_pretrained(pixel_pipeline(tmp_path / "named", unet(rows=3), CLASSES))
    assert named.class_names == PixelUNet.labels_in(Repository(str(tmp_path / "named"))) == CLASSES
    with pytest.raises(ClassMismatch):
        named.conditions(["zebra"])
    rows = torch.tensor([0, 2])
    z = torch.randn(2, 3, 8, 8)
    both = torch.cat([named.predict_noise(z[i : i + 1], 500, named.conditions(CLASSES)[name]) for i, name in ((0, "ant"), (1, "cow"))])
    torch.testing.assert_close(named.predict_noise(z, 500, rows), both)
    with pytest.raises(SettingsError, match="--denoising-guidance 1"):
        named.predict_noise(z, 500, rows, 4.0)


def test_one_row_more_than_names_is_the_null_class(tmp_path: Path) -> None:
    prior = Prior.from_pretrained(pixel_pipeline(tmp_path / "ddpm", unet(rows=4), CLASSES))
    z, rows = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    null, plain = prior.predict_noise(z, 500, torch.tensor([3, 3])), prior.predict_noise(z, 500, rows)
    torch.testing.assert_close(prior.predict_noise(z, 500, rows, 3.0), null + 3 * (plain - null))


def test_an_older_repository_has_everything_at_the_top(folder: Path, tmp_path: Path) -> None:
    """As google/ddpm-cifar10-32: no folders, and a scheduler's configuration of few words."""
    old = tmp_path / "old"
    shutil.copytree(folder / "unet", old)
    shutil.copy(folder / "model_index.json", old)
    words = {"_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": True}
    (old / "scheduler_config.json").write_text(json.dumps({**words, "num_train_timesteps": 1000, "trained_betas": None}))
    prior = Prior.from_pretrained(old)
    assert prior.fingerprint == Prior.from_pretrained(folder).fingerprint
    prior.save_pretrained(tmp_path / "copy")
    assert Prior.from_pretrained(tmp_path / "copy").fingerprint == prior.fingerprint


def test_learned_variance_is_left_out() -> None:
    network = unet(out_channels=6)
    prior = Prior(PixelUNet(network), Pixels(3), {"beta_start": 1e-4, "beta_end": 0.02})
    with torch.no_grad():
        both = network(IMAGES, 7).sample
    torch.testing.assert_close(prior.predict_noise(IMAGES, 7, prior.denoiser.example), both[:, :3])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample_size": None}, "sample_size None"),
        ({"sample_size": (8, 16)}, "square images"),
        ({"in_channels": 4, "out_channels": 4}, "RGB images, or of grey ones"),
        ({"out_channels": 1}, "3 input channels, 1 outputs"),
        ({"time_embedding_type": "fourier"}, "time embedding 'fourier'"),
        ({"class_embed_type": "timestep"}, "class embedding 'timestep'"),
        ({"rows": 5}, "5 labels, 0 names"),
    ],
)
def test_networks_of_another_kind_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PriorError, match=words):
        PixelUNet(unet(**changes))


def test_an_autoencoder_has_no_part_in_it(folder: Path, tmp_path: Path) -> None:
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "vae")
    with pytest.raises(PriorError, match="leave --autoencoder out"):
        Prior.from_pretrained(folder, autoencoder=tmp_path / "vae")


@pytest.mark.slow
def test_a_set_is_distilled_and_drawn_again(folder: Path, digits: ImageData, tmp_path: Path) -> None:
    """From statistics of each class, though the prior knows none."""
    prior = Prior.from_pretrained(folder)
    settings: dict[str, Any] = {"preset": "paper", "ipc": 2, "steps": 4, "level": 2, "num_candidates": 4, "max_images_per_class": 4}
    made = d3hr.distill(digits, prior, tmp_path / "set", **settings)
    assert len(made) == 20
    assert made.manifest.prior.fingerprint == prior.fingerprint
    again = d3hr.expand(made, prior, tmp_path / "more", ipc=3)
    assert len(again) == 30
