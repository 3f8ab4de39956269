"""Priors that are given a prompt for a class: small pipelines of the layouts of public ones, against diffusers itself."""

import gc
import json
import pickle
import weakref
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from d3hr import Prior, denoise, expand, invert
from d3hr.__main__ import main
from d3hr.errors import ClassMismatch, PriorError, SettingsError
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.families.dit import DiT
from d3hr.prior.prompts import match_prompts
from d3hr.prior.repository import Repository, Variant
from d3hr.prior.text_encoders import TextEncoders
from d3hr.sets.distilled_set import DistilledSet
from tests.conftest import MakeFolder, untrained_prior
from tests.prior.text_models import SCHEDULER, opened, stable_diffusion, unet

CLASSES = ["red_fox", "n01440764"]
PROMPTS = ["a photo of a red fox", "a photo of a tench"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion(tmp_path_factory.mktemp("text") / "sd")


@pytest.fixture(scope="module")
def prior(folder: Path) -> Prior:
    return Prior.from_pretrained(folder)


def latents(prior: Prior) -> torch.Tensor:
    return torch.randn(2, *prior.latent_shape, generator=torch.Generator().manual_seed(0))


def test_names_become_prompts(prior: Prior) -> None:
    """Underscores are spaces, and a wnid is the first synonym of its label: "tench, Tinca tinca"."""
    matched = prior.denoiser.match(CLASSES, of="the data")
    assert matched == tuple(Conditioning(name, None, prompt, "prompt") for name, prompt in zip(CLASSES, PROMPTS, strict=True))
    assert [match.prior_class for match in match_prompts(["cat"], of="the data", template="the {name}, drawn")] == ["the cat, drawn"]


def test_a_class_map_has_the_prompts_of_all_classes_or_a_template_for_the_others() -> None:
    named = {"red_fox": "a fox in snow"}
    with pytest.raises(ClassMismatch, match=r"no prompt for 1 class.*n01440764"):
        match_prompts(CLASSES, of="the data", class_map=named)
    matched = match_prompts(CLASSES, of="the data", class_map=named, template="the {name}")
    assert [(match.prior_class, match.how) for match in matched] == [("a fox in snow", "class map"), ("the tench", "prompt")]
    with pytest.raises(ClassMismatch, match="no class wolf"):
        match_prompts(CLASSES, of="the data", class_map={"wolf": "a wolf"}, template="the {name}")


def test_prompts_that_do_not_tell_classes_apart_are_refused() -> None:
    with pytest.raises(SettingsError, match="no place for the class"):
        match_prompts(CLASSES, of="the data", template="a photo")
    with pytest.raises(ClassMismatch, match="n02012849 and n03126707 have the same prompt, 'a photo of a crane'"):
        match_prompts(["n02012849", "n03126707"], of="the data")


def test_conditions_are_those_of_the_pipeline(folder: Path, prior: Prior) -> None:
    pipeline = opened(folder)
    conditions = prior.conditions(CLASSES)
    for name, prompt in zip(CLASSES, PROMPTS, strict=True):
        theirs, null = pipeline.encode_prompt(prompt, "cpu", 1, True)
        assert conditions[name].key == prompt
        assert torch.equal(conditions[name].inputs["encoder_hidden_states"], theirs[0])
        ours = conditions[name].null
        assert ours is not None
        assert torch.equal(ours["encoder_hidden_states"], null[0])
    drawn = prior.conditions(["cat"], prompt="a drawing of a {name}")["cat"]
    assert drawn.key == "a drawing of a cat"


def test_the_negative_prompt_is_the_null_condition(folder: Path) -> None:
    prior = Prior.from_pretrained(folder, negative_prompt="blurred")
    null = prior.conditions(["cat"])["cat"].null
    assert null is not None
    assert torch.equal(null["encoder_hidden_states"], opened(folder).encode_prompt("blurred", "cpu", 1, False)[0][0])
    assert prior.fingerprint != Prior.from_pretrained(folder).fingerprint


def test_a_step_is_that_of_the_u_net_and_ddim(folder: Path, prior: Prior) -> None:
    """From level 10 to level 9 of 50, with guidance 3: timesteps 201 and 181, by the leading grid with an offset of 1."""
    z, condition = latents(prior), prior.conditions(["cat"])["cat"]
    points = prior.schedule.points(50)
    slope = prior.slope(z, points[10], condition, 3.0)
    ours = prior.schedule.step(z, slope, points[10], points[9])
    pipeline = opened(folder)
    scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(50)
    of_class, null = pipeline.encode_prompt("a photo of a cat", "cpu", 2, True)
    with torch.no_grad():
        with_text, without = (pipeline.unet(z, 201, encoder_hidden_states=text).sample for text in (of_class, null))
    theirs = scheduler.step(without + 3.0 * (with_text - without), 201, z).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_network_that_predicts_v(tmp_path: Path) -> None:
    """Stable Diffusion 2.1's kind of output: the noise is alpha v + sigma z."""
    prior = Prior.from_pretrained(stable_diffusion(tmp_path / "sd2", scheduler={**SCHEDULER, "prediction_type": "v_prediction"}))
    z, condition = latents(prior), prior.conditions(["cat"])["cat"]
    point = prior.schedule.points(50)[20]
    with torch.no_grad():
        v = prior.network(z, point.t, encoder_hidden_states=condition.batch(2)["encoder_hidden_states"]).sample
    torch.testing.assert_close(prior.slope(z, point, condition), point.alpha * v + point.sigma * z)


def test_inversion_and_denoising_lead_back(prior: Prior) -> None:
    z, condition = latents(prior), prior.conditions(["cat"])["cat"]
    there = invert(prior, z, condition, level=10, steps=50)
    back = denoise(prior, there, condition, level=10, steps=50)
    assert float((back - z).abs().mean()) < 0.2 * float((there - z).abs().mean())


def test_the_text_encoder_is_gone_once_prompts_are_encoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders: list[weakref.ref[Any]] = []

    def load(self: TextEncoders, dtype: torch.dtype, device: torch.device, original: Any = TextEncoders.load) -> dict[str, Any]:
        parts: dict[str, Any] = original(self, dtype, device)
        encoders.append(weakref.ref(parts["text_encoder"]))
        return parts

    monkeypatch.setattr(TextEncoders, "load", load)
    prior = Prior.from_pretrained(folder)
    assert not encoders
    first = prior.conditions(["cat"])["cat"]
    gc.collect()
    assert [encoder() for encoder in encoders] == [None]
    assert prior.conditions(["cat"])["cat"].inputs is first.inputs  # a prompt that is known needs none
    assert len(encoders) == 1


def test_other_processes_get_the_same_prior_and_conditions(folder: Path) -> None:
    prior = Prior.from_pretrained(folder, prompt="the {name}", negative_prompt="noise")
    there, condition = pickle.loads(pickle.dumps((prior, prior.conditions(["cat"])["cat"])))
    assert there.variant == Variant(prompt="the {name}", negative_prompt="noise")
    z, point = latents(prior), prior.schedule.points(10)[4]
    assert torch.equal(there.slope(z, point, condition, 2.0), prior.slope(z, point, prior.conditions(["cat"])["cat"], 2.0))


def test_diffusers_opens_and_generates_before_and_after(folder: Path, prior: Prior, tmp_path: Path) -> None:
    prior.save_pretrained(tmp_path / "again")
    arguments: dict[str, Any] = {"prompt": "a photo of a cat", "num_inference_steps": 2, "output_type": "np"}
    images = [opened(place)(**arguments, generator=torch.Generator().manual_seed(0)).images for place in (folder, tmp_path / "again")]
    assert (images[0] == images[1]).all()
    assert Prior.from_pretrained(tmp_path / "again").fingerprint == prior.fingerprint


def test_a_set_finds_prompts_and_negative_prompt_again(folder: Path, image_folder: MakeFolder, tmp_path: Path) -> None:
    images = image_folder({"cat": 3, "red_fox": 3})
    common = ["--prior", str(folder), "--ipc", "2", "--steps", "5", "--level", "2", "--num-candidates", "5"]
    flags = ["--prompt", "one {name}", "--negative-prompt", "noise", "--denoising-guidance", "2"]
    assert main(["distill", str(images), "--out", str(tmp_path / "set"), *common, *flags]) == 0
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert [(entry["prior_class"], entry["conditioning_id"]) for entry in manifest["classes"]] == [("one cat", None), ("one red fox", None)]
    assert (manifest["prior"]["prompt"], manifest["prior"]["negative_prompt"]) == ("one {name}", "noise")
    assert len(manifest["prior"]["text_encoders"]) == 64
    assert main(["expand", str(tmp_path / "set"), "--out", str(tmp_path / "more"), "--ipc", "3"]) == 0
    assert DistilledSet.load(tmp_path / "more").images.shape[0] == 6
    with pytest.raises(Exception, match="prior"):  # another negative prompt is another prior
        expand(DistilledSet.load(tmp_path / "set"), Prior.from_pretrained(folder), tmp_path / "other", ipc=3)


def test_inspect_shows_the_prompts_without_weights(folder: Path, image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    images = image_folder({"cat": 1, "red_fox": 1})
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "gone")
    try:
        assert main(["inspect", str(images), "--prior", str(folder), "--prompt", "one {name}"]) == 0
    finally:
        (folder / "gone").rename(weights)
    assert "one red fox" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [{"prompt": "a {name}"}, {"negative_prompt": ""}])
def test_a_label_table_takes_no_text(tmp_path: Path, flags: dict[str, Any]) -> None:
    untrained_prior(("cat", "dog")).save_pretrained(tmp_path / "dit")
    with pytest.raises(SettingsError, match="is for text-to-image priors"):
        Prior.from_pretrained(tmp_path / "dit", **flags)
    with pytest.raises(SettingsError, match="is for text-to-image priors"):
        DiT.match_in(Repository(str(tmp_path / "dit")), Variant(**flags), ["cat"], of="the data")


@pytest.mark.parametrize(
    ("network", "scheduler", "message"),
    [
        ({"time_cond_proj_dim": 8}, SCHEDULER, "distilled to one step or a few.*guidance scale"),
        ({}, {**SCHEDULER, "_class_name": "LCMScheduler"}, "distilled to one step or a few.*LCMScheduler"),
        ({"in_channels": 9}, SCHEDULER, "9 input and 4 output channels"),
        ({"sample_size": (4, 8)}, SCHEDULER, "one side, of square images"),
        ({"class_embed_type": "timestep"}, SCHEDULER, "class_embed_type is timestep"),
    ],
)
def test_models_that_cannot_be_inverted_are_refused(
    tmp_path: Path, network: dict[str, Any], scheduler: dict[str, Any], message: str
) -> None:
    made = stable_diffusion(tmp_path / "sd", network=unet(**network), scheduler=scheduler)
    with pytest.raises(PriorError, match=f"(?s){message}"):
        Prior.from_pretrained(made)


def test_a_tokenizer_that_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    prior = Prior.from_pretrained(folder)
    (folder / "tokenizer").rename(folder / "gone")
    try:
        with pytest.raises(PriorError, match="tokenizer"):
            prior.conditions(["cat"])
    finally:
        (folder / "gone").rename(folder / "tokenizer")
