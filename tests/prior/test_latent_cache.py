"""Latents on disk: encoded once, found again, never confused with others."""

from pathlib import Path

import pytest
import torch

from d3hr import ImageData, Prior, load_images
from d3hr.errors import OutputError
from d3hr.prior import latent_cache as latents_module
from d3hr.prior.latent_cache import Latents
from d3hr.progress import Progress
from tests.conftest import ONE_PROCESS, MakeFolder, RecordingProgress, tree, untrained_prior


@pytest.fixture
def images(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder({"ant": 5, "bee": 6}))


@pytest.fixture
def prior() -> Prior:
    return untrained_prior(("ant", "bee"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four latents a shard, three images a batch."""
    monkeypatch.setattr(latents_module, "ROWS_PER_SHARD", 4)
    monkeypatch.setattr(latents_module, "ROWS_PER_BATCH", 3)


def test_latents_are_those_of_the_images_in_order(images: ImageData, prior: Prior, tmp_path: Path) -> None:
    latents = Latents(images, prior.vae, tmp_path / "cache", ONE_PROCESS, Progress())
    expected = prior.encode(images.gather(range(11))[0])
    torch.testing.assert_close(latents.gather(torch.arange(11)), expected)
    torch.testing.assert_close(latents.gather(torch.tensor([10, 0, 4])), expected[[10, 0, 4]])
    assert latents.root_mean_square() == pytest.approx(float(expected.double().square().mean().sqrt()))
    assert sorted(path.name for path in (tmp_path / "cache").glob("*.safetensors")) == [f"{start:09d}.safetensors" for start in (0, 4, 8)]


def test_a_second_fit_finds_them_and_a_lost_shard_is_made_again(images: ImageData, prior: Prior, tmp_path: Path) -> None:
    Latents(images, prior.vae, tmp_path / "cache", ONE_PROCESS, Progress())
    before = tree(tmp_path / "cache")
    (tmp_path / "cache" / "000000004.safetensors").unlink()
    kept = (tmp_path / "cache" / "000000000.safetensors").stat().st_mtime_ns
    progress = RecordingProgress()
    Latents(images, prior.vae, tmp_path / "cache", ONE_PROCESS, progress)
    assert tree(tmp_path / "cache") == before
    assert (tmp_path / "cache" / "000000000.safetensors").stat().st_mtime_ns == kept
    assert progress.lines == []


def test_latents_of_another_autoencoder_or_data_set_are_made_anew_and_this_is_said(
    images: ImageData, prior: Prior, image_folder: MakeFolder, tmp_path: Path
) -> None:
    Latents(images, prior.vae, tmp_path / "cache", ONE_PROCESS, Progress())
    prior.vae.decoder.conv_out.bias.data += 1
    prior.vae.encoder.conv_in.bias.data += 1
    progress = RecordingProgress()
    latents = Latents(images, prior.vae, tmp_path / "cache", ONE_PROCESS, progress)
    torch.testing.assert_close(latents.gather(torch.arange(11)), prior.encode(images.gather(range(11))[0]))
    assert progress.lines == [f"the latents in {tmp_path / 'cache'} are of other inputs (autoencoder): they are encoded again"]
    fewer = load_images(image_folder({"ant": 3, "bee": 2}, name="fewer"))
    latents = Latents(fewer, prior.vae, tmp_path / "cache", ONE_PROCESS, progress)
    torch.testing.assert_close(latents.gather(torch.arange(5)), prior.encode(fewer.gather(range(5))[0]))
    assert progress.lines[1:] == [f"the latents in {tmp_path / 'cache'} are of other inputs (images): they are encoded again"]


def test_a_folder_of_other_things_is_left_alone(images: ImageData, prior: Prior, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="no cache of latents"):
        Latents(images, prior.vae, tmp_path, ONE_PROCESS, Progress())
    assert (tmp_path / "thesis.txt").read_text() == "years"
