import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from d3hr import Prior, fit_prior
from d3hr.data.dataset import ImageData
from d3hr.errors import PriorError
from d3hr.prior.families.sit import SiT
from d3hr.prior.imagenet import imagenet_labels
from d3hr.prior.repository import Repository
from d3hr.prior.schedules.flow_matching import FlowMatching
from tests.prior.sit_reference import HEADS, random_checkpoint, velocity
from tests.prior.small_priors import sit_copy
from tests.prior.text_models import vae


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    vae().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(random_checkpoint(), tmp_path / "SiT-S-2.pt")
    return tmp_path / "SiT-S-2.pt"


def test_the_velocity_is_that_of_the_paper(checkpoint: Path, autoencoder: Path) -> None:
    """By float64 NumPy, for two blocks, any time, and the null class: noise - clean, which is the negative of SiT's output.

    The network is given float64 too, in which a wrong epsilon shows; sines and cosines of time and place stay float32.
    """
    weights = random_checkpoint(blocks=2)
    torch.save(weights, checkpoint)
    prior = Prior.from_pretrained(checkpoint, autoencoder=autoencoder)
    assert isinstance(prior.schedule, FlowMatching)
    prior.network.double()
    rows = torch.tensor([0, 2, 3])
    z = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sigma in (0.0, 0.3, 0.77, 1.0):
        expected = velocity(weights, z.numpy(), np.full(3, 1 - sigma), rows.numpy())
        slope = prior.slope(z, prior.schedule.at(sigma), rows).numpy()
        np.testing.assert_allclose(slope, -expected, atol=1e-6)
        assert np.abs(expected).mean() > 0.5


def test_frequencies_of_time_are_those_of_sit(checkpoint: Path, autoencoder: Path) -> None:
    """diffusers' own transformer, of the same weights, spreads them a little further: what it says differs."""
    prior = Prior.from_pretrained(checkpoint, autoencoder=autoencoder)
    prior.network.save_pretrained(checkpoint.with_name("network"))
    theirs = diffusers.DiTTransformer2DModel.from_pretrained(checkpoint.with_name("network")).eval()
    z, y = torch.randn(1, 4, 4, 4), torch.tensor([1])
    with torch.no_grad():
        output = theirs(z, timestep=torch.tensor([0.5]), class_labels=y).sample[:, :4]
    slope = prior.slope(z, prior.schedule.points(3)[1], y)
    assert 1e-4 < float((slope + output).abs().max()) < 0.1


def test_a_dit_by_its_name_is_not_taken_for_a_sit(checkpoint: Path, autoencoder: Path) -> None:
    """Its tensors have the same names, and its output is noise."""
    dit = checkpoint.rename(checkpoint.with_name("DiT-XL-2-256x256.pt"))
    with pytest.raises(PriorError, match="named after DiT"):
        Prior.from_pretrained(dit, autoencoder=autoencoder)


def test_a_checkpoint_travels_to_other_processes(checkpoint: Path, autoencoder: Path) -> None:
    prior = Prior.from_pretrained(checkpoint, autoencoder=autoencoder)
    assert pickle.loads(pickle.dumps(prior)).fingerprint == prior.fingerprint


def test_a_checkpoint_in_safetensors_is_the_same(checkpoint: Path, autoencoder: Path) -> None:
    file = checkpoint.with_suffix(".safetensors")
    save_file(random_checkpoint(), file)
    expected = Prior.from_pretrained(checkpoint, autoencoder=autoencoder).fingerprint
    assert Prior.from_pretrained(file, autoencoder=autoencoder).fingerprint == expected
    file.write_bytes(b"damaged")
    with pytest.raises(PriorError, match=r"SiT-S-2\.safetensors: "):
        Prior.from_pretrained(file, autoencoder=autoencoder)


@pytest.mark.parametrize("form", ["bare", "ema", "model", "distributed"])
def test_checkpoints_of_every_form(form: str, checkpoint: Path, autoencoder: Path) -> None:
    """What SiT's training writes: settings, optimiser, and a moving average, which comes first."""
    weights, other = random_checkpoint(), {name: 2 * value for name, value in random_checkpoint().items()}
    settings = argparse.Namespace(path_type="Linear", prediction="velocity", global_seed=0)
    content: dict[str, dict[str, Any]] = {
        "bare": weights,
        "ema": {"model": other, "ema": weights, "opt": {}, "args": settings},
        "model": {"model": weights},
        "distributed": {"model": {f"module.{name}": value for name, value in weights.items()}},
    }
    expected = Prior.from_pretrained(checkpoint, autoencoder=autoencoder).fingerprint
    torch.save(content[form], checkpoint, _use_new_zipfile_serialization=form != "model")
    assert Prior.from_pretrained(checkpoint, autoencoder=autoencoder).fingerprint == expected


def test_a_copy_in_the_layout_of_diffusers_is_the_same(checkpoint: Path, autoencoder: Path, tmp_path: Path) -> None:
    """As BiliSakura/SiT-diffusers: SiT's names in safetensors, and code, which is not run."""
    folder = sit_copy(tmp_path / "copy")
    (folder / "pipeline.py").write_text("raise SystemExit('remote code was run')")
    (folder / "transformer" / "transformer_sit.py").write_text("raise SystemExit('remote code was run')")
    copy = Prior.from_pretrained(folder)
    assert copy.fingerprint == Prior.from_pretrained(checkpoint, autoencoder=autoencoder).fingerprint
    older = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({**older, "_class_name": "SiTFlowMatchScheduler", "mode": "ode"})
    )
    assert Prior.from_pretrained(folder).fingerprint == copy.fingerprint


def test_a_saved_copy_says_that_it_is_sit(checkpoint: Path, autoencoder: Path, tmp_path: Path) -> None:
    """diffusers opens its transformer and autoencoder, and refuses the whole, whose pipeline it does not have."""
    prior = Prior.from_pretrained(checkpoint, autoencoder=autoencoder)
    prior.save_pretrained(tmp_path / "copy")
    assert diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "copy" / "transformer").config.num_embeds_ada_norm == 3
    assert diffusers.AutoencoderKL.from_pretrained(tmp_path / "copy" / "vae")
    with pytest.raises(Exception, match="SiTPipeline"):
        diffusers.DiffusionPipeline.from_pretrained(tmp_path / "copy")


def test_a_thousand_classes_are_those_of_imagenet(checkpoint: Path) -> None:
    assert SiT.labels_in(Repository(str(checkpoint))) == ("0", "1", "2")
    torch.save(random_checkpoint(classes=1000), checkpoint)
    assert SiT.labels_in(Repository(str(checkpoint))) == tuple(imagenet_labels().values())


def test_without_an_autoencoder_it_is_said_which(checkpoint: Path) -> None:
    with pytest.raises(PriorError, match="--autoencoder stabilityai/sd-vae-ft-ema"):
        Prior.from_pretrained(checkpoint)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("code of a checkpoint was run",))


def without(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in random_checkpoint().items() if key != name}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"x": _Evil()}, "no checkpoint of tensors only"),
        ([1, 2], "holds a list"),
        ({"weight": torch.zeros(2)}, "no weights of SiT"),
        (without("blocks.0.attn.proj.bias"), r"lacks blocks\.0\.attn\.proj\.bias"),
        ({**random_checkpoint(), "projectors.0.weight": torch.zeros(2)}, r"has the unknown projectors\.0\.weight"),
        ({**random_checkpoint(), "pos_embed": torch.zeros(1, 4, 384)}, "embedding of positions"),
        ({**random_checkpoint(), "blocks.0.attn.proj.bias": torch.zeros(7)}, "size mismatch"),
        (random_checkpoint(width=96), "width 96"),
        ({"ema": random_checkpoint(), "args": argparse.Namespace(path_type="GVP", prediction="velocity")}, "path_type GVP"),
        ({"ema": random_checkpoint(), "args": argparse.Namespace(path_type="Linear", prediction="noise")}, "prediction noise"),
        ({"ema": random_checkpoint(), "args": argparse.Namespace(model="DiT-XL/2")}, "model DiT-XL/2"),
    ],
)
def test_other_files_are_refused(content: Any, words: str, checkpoint: Path, autoencoder: Path) -> None:
    torch.save(content, checkpoint)
    with pytest.raises(PriorError, match=words):
        Prior.from_pretrained(checkpoint, autoencoder=autoencoder)


def test_a_file_that_is_no_checkpoint_is_refused(checkpoint: Path, autoencoder: Path) -> None:
    for content in (b"", b"not a checkpoint"):
        checkpoint.write_bytes(content)
        with pytest.raises(PriorError, match="no checkpoint of tensors only"):
            Prior.from_pretrained(checkpoint, autoencoder=autoencoder)


def test_a_copy_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = sit_copy(tmp_path / "copy")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (folder / "transformer" / "config.json").write_text(json.dumps({**config, "norm_type": "rms"}))
    with pytest.raises(PriorError, match="norm_type is rms"):
        Prior.from_pretrained(folder)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    save_file({"weight": torch.zeros(2)}, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(PriorError, match="no weights of SiT"):
        Prior.from_pretrained(folder)


def test_heads_of_a_copy_are_those_of_its_configuration(tmp_path: Path) -> None:
    weights = random_checkpoint(width=96)
    folder = sit_copy(tmp_path / "copy", weights, heads=3)
    z, y = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1])
    prior = Prior.from_pretrained(folder)
    slope = prior.slope(z, prior.schedule.points(3)[1], y).numpy()
    np.testing.assert_allclose(slope, -velocity(weights, z.double().numpy(), np.full(2, 0.5), y.numpy(), heads=3), atol=2e-5)
    assert HEADS != 3


@pytest.mark.slow
def test_it_is_fitted_to_other_classes(digits: ImageData, tmp_path: Path) -> None:
    """Still a SiT, of the digits, whose training lowers the error of its velocity."""
    fitted = fit_prior(digits, tmp_path / "fitted", init=sit_copy(tmp_path / "copy"), steps=30, batch_size=32, learning_rate=1e-3)
    assert isinstance(fitted.denoiser, SiT)
    assert fitted.class_names == digits.class_names
    losses = [float(line.split(",")[-1]) for line in (tmp_path / "fitted" / "loss.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]
