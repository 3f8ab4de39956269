"""LoRA adapters of text-to-image priors, against diffusers' own loader."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from d3hr import Prior
from d3hr.errors import PriorError, SettingsError
from tests.conftest import untrained_prior
from tests.prior.text_models import opened, stable_diffusion, stable_diffusion_3, stable_diffusion_xl, text_encoder

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion(tmp_path_factory.mktemp("text") / "sd")


def layers(network: Any, targets: list[str] = ATTENTION, rank: int = 2) -> dict[str, torch.Tensor]:
    """Random weights of an adapter for a network."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), network)
        state: dict[str, torch.Tensor] = get_peft_model_state_dict(network)
        return {name: torch.randn(value.shape) for name, value in state.items()}


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the U-Net, as diffusers' training scripts save it."""
    place = tmp_path_factory.mktemp("adapter")
    diffusers.StableDiffusionPipeline.save_lora_weights(place, unet_lora_layers=layers(opened(folder).unet))
    return place


def latents(prior: Prior) -> torch.Tensor:
    return torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(0))


def test_an_adapter_is_what_diffusers_makes_of_it(folder: Path, adapter: Path) -> None:
    prior, pipeline = Prior.from_pretrained(folder, lora=adapter), opened(folder)
    condition = prior.conditions(["cat"])["cat"]
    text = condition.batch(2)["encoder_hidden_states"]
    point = prior.schedule.points(50)[10]
    z = latents(prior)
    with torch.no_grad():
        plain = pipeline.unet(z, point.t, encoder_hidden_states=text).sample
        pipeline.load_lora_weights(adapter)
        adapted = pipeline.unet(z, point.t, encoder_hidden_states=text).sample
    torch.testing.assert_close(prior.slope(z, point, condition), adapted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, adapted, rtol=1e-2, atol=1e-2)


def test_it_is_folded_into_the_weights_and_part_of_the_fingerprint(folder: Path, adapter: Path, tmp_path: Path) -> None:
    plain, prior = Prior.from_pretrained(folder), Prior.from_pretrained(folder, lora=adapter)
    assert prior.network.state_dict().keys() == plain.network.state_dict().keys()
    assert prior.fingerprint != plain.fingerprint
    assert prior.record.lora == str(adapter)
    assert pickle.loads(pickle.dumps(prior)).fingerprint == prior.fingerprint
    prior.save_pretrained(tmp_path / "fused")
    assert Prior.from_pretrained(tmp_path / "fused").fingerprint == prior.fingerprint
    opened(tmp_path / "fused")


def test_it_may_adapt_the_text_encoder(folder: Path, tmp_path: Path) -> None:
    encoder = layers(text_encoder(), ["q_proj", "v_proj"])
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path / "both", unet_lora_layers=layers(opened(folder).unet), text_encoder_lora_layers=encoder
    )
    prior, pipeline = Prior.from_pretrained(folder, lora=tmp_path / "both"), opened(folder)
    ours = prior.conditions(["cat"])["cat"].inputs["encoder_hidden_states"]
    plain = pipeline.encode_prompt("a photo of a cat", "cpu", 1, False)[0][0]
    pipeline.load_lora_weights(tmp_path / "both")
    adapted = pipeline.encode_prompt("a photo of a cat", "cpu", 1, False)[0][0]
    torch.testing.assert_close(ours, adapted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, adapted, rtol=1e-2, atol=1e-2)
    prior.save_pretrained(tmp_path / "fused")
    again = Prior.from_pretrained(tmp_path / "fused").conditions(["cat"])["cat"].inputs["encoder_hidden_states"]
    torch.testing.assert_close(again, ours, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("save", "kind", "part"),
    [
        (stable_diffusion_xl, diffusers.StableDiffusionXLPipeline, "unet"),
        (stable_diffusion_3, diffusers.StableDiffusion3Pipeline, "transformer"),
    ],
)
def test_the_other_families_take_adapters(save: Callable[[Path], Path], kind: Any, part: str, tmp_path: Path) -> None:
    saved = save(tmp_path / "prior")
    pipeline = opened(saved)
    kind.save_lora_weights(tmp_path / "lora", **{f"{part}_lora_layers": layers(getattr(pipeline, part))})
    prior, pipeline = Prior.from_pretrained(saved, lora=tmp_path / "lora"), opened(saved)
    pipeline.load_lora_weights(tmp_path / "lora")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    theirs = getattr(pipeline, part).state_dict()
    for name, value in prior.network.state_dict().items():
        torch.testing.assert_close(value, theirs[name])


def test_adapters_that_do_not_fit(folder: Path, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = load_file(adapter / "pytorch_lora_weights.safetensors")
    wrong = {
        "shapes": {name: value[..., :-1].contiguous() for name, value in weights.items()},
        "names": {name.replace("down_blocks.1", "down_blocks.7"): value for name, value in weights.items()},
        "network": {name.replace("unet.", "transformer."): value for name, value in weights.items()},
        "kind": {"weight": torch.zeros(2)},
    }
    for name, content in wrong.items():
        (tmp_path / name).mkdir()
        save_file(content, tmp_path / name / "pytorch_lora_weights.safetensors")
    (tmp_path / "empty").mkdir()
    for name in (*wrong, "empty"):
        with pytest.raises(PriorError, match=f"(?s)adapter .*{name} does not fit the prior"):
            Prior.from_pretrained(folder, lora=tmp_path / name)
    assert not caplog.records  # one error, and nothing that a library says next to it


def test_a_label_table_takes_no_adapter(adapter: Path, tmp_path: Path) -> None:
    untrained_prior(("cat", "dog")).save_pretrained(tmp_path / "dit")
    with pytest.raises(SettingsError, match="--lora is for text-to-image priors"):
        Prior.from_pretrained(tmp_path / "dit", lora=adapter)
