"""A pretrained prior on other classes: what is kept, what moves, what is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import ImageData, Prior, fit_prior, load_images
from d3hr.errors import ClassMismatch, SettingsError
from d3hr.prior.adapters import merge_lora
from d3hr.prior.transformer import add_adapters, replace_classes
from tests.conftest import MakeFolder, tree, untrained_prior

OLD = ("ant", "bee", "cat", "dog")


@pytest.fixture
def init(tmp_path: Path) -> Prior:
    prior = untrained_prior(OLD)
    prior.licence = "cc-by-nc-4.0"
    prior.save_pretrained(tmp_path / "init")
    return Prior.from_pretrained(tmp_path / "init")


@pytest.fixture
def images(image_folder: MakeFolder) -> ImageData:
    """Two classes that the pretrained prior knows, in another order, and one that it does not."""
    return load_images(image_folder({"cat": 6, "emu": 6, "Ant": 6}))


def fit(images: ImageData, out: Path, **changes: Any) -> Prior:
    return fit_prior(images, out, **{"steps": 4, "batch_size": 8, **changes})


def predictions(prior: Prior) -> torch.Tensor:
    """Noise for every class and the null class."""
    count = len(prior.class_names) + 1
    z = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0)).expand(count, -1, -1, -1)
    return prior.predict_noise(z, 500, torch.arange(count))


def test_rows_of_known_classes_are_kept_and_new_ones_begin_as_the_null_class(init: Prior) -> None:
    """With the table [cat, new, ant] the network says of cat, ant and null what it said before, of the new class what it said of null."""
    before = predictions(init)
    replace_classes(init.network, [2, None, 0])
    init.denoiser.class_names = ("cat", "emu", "ant")
    after = predictions(init)
    torch.testing.assert_close(after, before[[2, 4, 0, 4]])
    assert init.network.config.num_embeds_ada_norm == 3


def test_every_row_of_the_new_table_can_move_apart(init: Prior) -> None:
    """New classes that begin alike do not share memory: a change of one leaves the other and the null class alone."""
    replace_classes(init.network, [None, None])
    for block in init.network.transformer_blocks:
        block.norm1.emb.class_embedder.embedding_table.weight.data[0] += 1
    init.denoiser.class_names = ("emu", "fox")
    first, second, null = predictions(init)
    torch.testing.assert_close(second, null)
    assert not torch.allclose(first, null, atol=1e-3)


def test_fine_tuning_gives_a_whole_prior_of_the_new_classes(init: Prior, images: ImageData, tmp_path: Path) -> None:
    """Autoencoder, scaling, schedule and licence are those of the pretrained prior, which is left as it was; the transformer moved."""
    weights = {name: value.clone() for name, value in init.network.state_dict().items()}
    prior = fit(images, tmp_path / "tuned", init=init)
    assert prior.class_names == ("Ant", "cat", "emu")
    assert prior.licence == "cc-by-nc-4.0"
    assert prior.scheduler_config == init.scheduler_config
    assert all(torch.equal(value, init.vae.state_dict()[name]) for name, value in prior.vae.state_dict().items())
    assert all(torch.equal(value, init.network.state_dict()[name]) for name, value in weights.items())
    moved = [name for name, value in prior.network.state_dict().items() if "table" not in name and not torch.equal(value, weights[name])]
    assert len(moved) > 10
    about = json.loads((tmp_path / "tuned" / "fit.json").read_text())
    assert about["began_as"] == {"Ant": "ant", "cat": "cat"}
    with (tmp_path / "tuned" / "loss.csv").open() as file:
        assert {row["network"] for row in csv.DictReader(file)} == {"transformer"}


def test_a_folder_and_a_loaded_prior_are_the_same_start(init: Prior, images: ImageData, tmp_path: Path) -> None:
    from_folder = fit(images, tmp_path / "a", init=str(tmp_path / "init"))
    from_memory = fit(images, tmp_path / "b", init=init)
    assert from_folder.fingerprint == from_memory.fingerprint


def test_a_class_map_says_what_a_class_begins_as(init: Prior, images: ImageData, tmp_path: Path) -> None:
    fit(images, tmp_path / "tuned", init=init, class_map={"emu": "bee"})
    assert json.loads((tmp_path / "tuned" / "fit.json").read_text())["began_as"] == {"Ant": "ant", "cat": "cat", "emu": "bee"}
    with pytest.raises(ClassMismatch, match="wasp"):
        fit(images, tmp_path / "other", init=init, class_map={"emu": "wasp"})


def test_lora_moves_the_label_table_and_the_adapters_only(init: Prior, images: ImageData, tmp_path: Path) -> None:
    """The result has the plain layout; adapted layers differ by a matrix of the rank asked for, the others not at all."""
    prior = fit(images, tmp_path / "tuned", init=init, adapt="lora", lora_rank=2, learning_rate=0.05, steps=20)
    new, old = prior.network.state_dict(), init.network.state_dict()
    assert new.keys() == old.keys()
    for name, value in new.items():
        if "embedding_table" in name:
            continue
        change = value - old[name]
        if any(
            part in name
            for part in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "ff.net.0.proj.weight", "ff.net.2.weight")
        ):
            assert int(torch.linalg.matrix_rank(change, atol=1e-4 * float(value.norm()))) == 2, name
        else:
            assert not change.any(), name
    tables = [name for name in new if "embedding_table" in name]
    assert all(not torch.equal(new[name][0], old[name][0]) for name in tables)


def test_merged_adapters_compute_the_same(init: Prior) -> None:
    """Folding the adapters in changes no prediction."""
    torch.manual_seed(0)
    add_adapters(init.network, 2)
    for name, value in init.network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    with_adapters = predictions(init)
    merge_lora(init.network)
    torch.testing.assert_close(predictions(init), with_adapters, atol=1e-5, rtol=1e-4)
    assert not [name for name, _ in init.network.named_parameters() if "lora" in name]


def test_gradient_checkpointing_gives_the_same_weights(init: Prior, images: ImageData, tmp_path: Path) -> None:
    plain = fit(images, tmp_path / "plain", init=init)
    saved = fit(images, tmp_path / "saved", init=init, gradient_checkpointing=True)
    for name, value in saved.network.state_dict().items():
        torch.testing.assert_close(value, plain.network.state_dict()[name], msg=name)


def test_a_given_autoencoder_keeps_its_weights(init: Prior, images: ImageData, tmp_path: Path) -> None:
    """From scratch behind the autoencoder of another prior: only a transformer is trained, on its latents, at unit scale."""
    prior = fit(images, tmp_path / "fitted", autoencoder=tmp_path / "init")
    assert all(torch.equal(value, init.vae.state_dict()[name]) for name, value in prior.vae.state_dict().items())
    assert prior.vae.config.scaling_factor != init.vae.config.scaling_factor
    assert float(prior.encode(images.gather(range(18))[0]).square().mean().sqrt()) == pytest.approx(1, rel=1e-4)
    assert prior.class_names == ("Ant", "cat", "emu")
    assert json.loads((tmp_path / "fitted" / "fit.json").read_text())["steps"] == {"transformer": 4}


@pytest.mark.slow
def test_a_stopped_lora_fit_ends_with_the_same_weights(
    init: Prior, images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while batch 7 of 12 is loaded, with a checkpoint after every step: the second sitting gives what one sitting gives."""
    from d3hr.prior.latent_cache import Latents

    settings = {"init": init, "adapt": "lora", "steps": 12}
    whole = fit(images, tmp_path / "whole", **settings)
    monkeypatch.setattr("d3hr.prior.trainer.CHECKPOINT_SECONDS", -1.0)
    gather, calls = Latents.gather, []

    def stopping(latents: Latents, positions: torch.Tensor) -> torch.Tensor:
        calls.append(positions)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return gather(latents, positions)

    monkeypatch.setattr(Latents, "gather", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(images, tmp_path / "parts", **settings)
    parts = fit(images, tmp_path / "parts", **settings)
    assert parts.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 16}, r"(?s)does not take this image size.*--image-size 16, the prior's 8"),
        ({"autoencoder_steps": 5}, "--autoencoder-steps is for training an autoencoder"),
        ({"adapt": "some"}, "--adapt"),
        ({"lora_rank": 0, "adapt": "lora"}, "--lora-rank"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"frobnicate": 1}, "--frobnicate"),
    ],
)
def test_contradictions_are_refused(init: Prior, images: ImageData, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        fit(images, tmp_path / "tuned", init=init, **changes)
    assert not (tmp_path / "tuned.partial").exists()


@pytest.mark.parametrize("changes", [{"adapt": "lora"}, {"class_map": {"emu": "bee"}}])
def test_what_needs_a_pretrained_prior_is_refused_without(images: ImageData, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="need --init"):
        fit(images, tmp_path / "fitted", **changes)


def test_the_tuned_prior_is_the_same_in_two_runs(init: Prior, images: ImageData, tmp_path: Path) -> None:
    fit(images, tmp_path / "a", init=init, adapt="lora")
    fit(images, tmp_path / "b", init=init, adapt="lora")
    for part in ("transformer", "vae", "scheduler"):
        assert tree(tmp_path / "a" / part) == tree(tmp_path / "b" / part)
