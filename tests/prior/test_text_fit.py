"""A text-to-image prior that is trained on one's own classes: what moves, what is kept, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import ImageData, Prior, fit_prior, load_images
from d3hr.__main__ import main
from d3hr.errors import ClassMismatch, SettingsError
from tests.conftest import MakeFolder
from tests.prior.small_priors import pixel_pipeline
from tests.prior.small_priors import unet as pixel_unet
from tests.prior.text_models import opened, stable_diffusion, stable_diffusion_3, stable_diffusion_xl

ADAPTED = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "ff.net.0.proj.weight", "ff.net.2.weight")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion(tmp_path_factory.mktemp("text") / "sd")


@pytest.fixture
def images(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder({"cat": 4, "red_fox": 4}))


def fit(images: ImageData, out: Path, **changes: Any) -> Prior:
    return fit_prior(images, out, **{"steps": 3, "batch_size": 4, "learning_rate": 0.02, **changes})


def test_adapters_of_the_u_net_are_trained_and_folded_in(folder: Path, images: ImageData, tmp_path: Path) -> None:
    init = Prior.from_pretrained(folder)
    prior = fit(images, tmp_path / "tuned", init=str(folder), lora_rank=2, steps=10, learning_rate=0.05)
    new, old = prior.network.state_dict(), init.network.state_dict()
    assert new.keys() == old.keys()
    for name, value in new.items():
        change = value - old[name]
        if name.endswith(ADAPTED):
            assert 0 < int(torch.linalg.matrix_rank(change, rtol=0.05)) <= 2, name
        else:
            assert not change.any(), name
    assert all(torch.equal(value, init.vae.state_dict()[name]) for name, value in prior.vae.state_dict().items())
    assert opened(tmp_path / "tuned")("a cat", num_inference_steps=2, height=8, width=8, output_type="np").images.shape == (1, 8, 8, 3)


def test_the_prompts_it_was_trained_on_are_kept(folder: Path, images: ImageData, tmp_path: Path) -> None:
    tuned = fit(images, tmp_path / "tuned", init=Prior.from_pretrained(folder, prompt="one {name}"))
    prompts = {"cat": "one cat", "red_fox": "one red fox"}
    assert json.loads((tmp_path / "tuned" / "fit.json").read_text())["began_as"] == prompts
    assert {name: condition.key for name, condition in tuned.conditions(images.class_names).items()} == prompts
    assert tuned.conditions(["cow"])["cow"].key == "a photo of a cow"
    assert Prior.from_pretrained(tmp_path / "tuned", prompt="a {name}").conditions(["cat"])["cat"].key == "a cat"


def test_each_class_is_trained_on_its_own_prompt(folder: Path, images: ImageData, tmp_path: Path) -> None:
    """The same two prompts the other way round, another negative prompt, and other data give other weights; the same gives the same."""
    named = {"cat": "a small cat", "red_fox": "a red fox"}
    swapped = {"cat": "a red fox", "red_fox": "a small cat"}
    negative = Prior.from_pretrained(folder, negative_prompt="noise")
    fits = [
        fit(images, tmp_path / "first", init=str(folder), class_map=named),
        fit(images, tmp_path / "same", init=Prior.from_pretrained(folder), class_map=named),
        fit(images, tmp_path / "swapped", init=str(folder), class_map=swapped),
        fit(images, tmp_path / "negative", init=negative, class_map=named, batch_size=8, steps=6),
        fit(images, tmp_path / "longer", init=str(folder), class_map=named, batch_size=8, steps=6),
    ]
    first, same, *others = [prior.network.state_dict()["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"] for prior in fits]
    assert torch.equal(first, same)
    assert not torch.equal(first, others[0])
    assert not torch.equal(others[1], others[2])


@pytest.mark.parametrize("save", [stable_diffusion_xl, stable_diffusion_3])
def test_the_other_families_are_trained_too(save: Any, images: ImageData, tmp_path: Path) -> None:
    saved = save(tmp_path / "init")
    before = Prior.from_pretrained(saved)
    after = fit(images, tmp_path / "tuned", init=before)
    moved = [name for name, value in after.network.state_dict().items() if not torch.equal(value, before.network.state_dict()[name])]
    assert moved
    assert all(name.endswith("weight") for name in moved)


def test_all_weights_are_trained_where_asked(folder: Path, images: ImageData, tmp_path: Path) -> None:
    before = Prior.from_pretrained(folder).network.state_dict()
    after = fit(images, tmp_path / "tuned", init=str(folder), adapt="full", learning_rate=1e-3).network.state_dict()
    assert not torch.equal(after["conv_in.weight"], before["conv_in.weight"])


@pytest.mark.slow
def test_a_stopped_fit_ends_with_the_same_weights(folder: Path, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while batch 4 of 6 is loaded, with a checkpoint after every step: the second sitting gives what one sitting gives."""
    from d3hr.prior.latent_cache import Latents

    settings: dict[str, Any] = {"init": str(folder), "steps": 6}
    whole = fit(images, tmp_path / "whole", **settings)
    monkeypatch.setattr("d3hr.prior.trainer.CHECKPOINT_SECONDS", -1.0)
    gather, calls = Latents.gather, []

    def stopping(latents: Latents, positions: torch.Tensor) -> torch.Tensor:
        calls.append(positions)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return gather(latents, positions)

    monkeypatch.setattr(Latents, "gather", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(images, tmp_path / "parts", **settings)
    assert fit(images, tmp_path / "parts", **settings).fingerprint == whole.fingerprint


def test_what_cannot_be_trained_is_refused(folder: Path, images: ImageData, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be trained further"):
        fit(images, tmp_path / "a", init=str(pixel_pipeline(tmp_path / "ddpm", pixel_unet())))
    with pytest.raises(ClassMismatch, match="no prompt for 1 class"):
        fit(images, tmp_path / "b", init=str(folder), class_map={"cat": "a cat"})
    assert main(["fit", str(images.source), "--out", str(tmp_path / "c"), "--prompt", "a {name}"]) != 0


@pytest.mark.slow
def test_the_command_fits_and_judges(folder: Path, image_folder: MakeFolder, tmp_path: Path) -> None:
    images = image_folder({"cat": 12, "red_fox": 12})
    flags = ["--init", str(folder), "--prompt", "one {name}", "--steps", "2", "--batch-size", "4"]
    assert main(["fit", str(images), "--out", str(tmp_path / "tuned"), *flags]) == 0
    assert (tmp_path / "tuned" / "verdict.json").is_file()
