"""Text-to-image priors of more than one text encoder, in the layouts of SDXL and Stable Diffusion 3, against diffusers itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from d3hr import Prior, denoise, invert
from d3hr.errors import PriorError
from tests.prior.text_models import opened, stable_diffusion_3, stable_diffusion_xl, t5

Save = Callable[..., Path]
PROMPT = "a photo of a cat"


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion_xl(tmp_path_factory.mktemp("xl") / "xl")


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion_3(tmp_path_factory.mktemp("sd3") / "sd3")


def test_sdxl_joins_two_encoders_and_says_that_nothing_was_cropped(xl: Path) -> None:
    condition = Prior.from_pretrained(xl).conditions(["cat"])["cat"]
    text, null, pooled, null_pooled = opened(xl).encode_prompt(PROMPT, device="cpu")
    assert torch.equal(condition.inputs["encoder_hidden_states"], text[0])
    assert torch.equal(condition.inputs["text_embeds"], pooled[0])
    assert condition.inputs["time_ids"].tolist() == [8, 8, 0, 0, 8, 8]  # original height and width, crop, height and width, in pixels
    assert condition.null is not None
    assert torch.equal(condition.null["encoder_hidden_states"], null[0])
    assert not condition.null["text_embeds"].any()
    assert not null_pooled.any()


def test_sdxl_without_zeros_for_the_empty_prompt(tmp_path: Path) -> None:
    saved = stable_diffusion_xl(tmp_path / "xl", zeros=False)
    null = Prior.from_pretrained(saved).conditions(["cat"])["cat"].null
    assert null is not None
    assert torch.equal(null["text_embeds"], opened(saved).encode_prompt(PROMPT, device="cpu")[3][0])
    assert null["text_embeds"].any()


def test_a_step_of_sdxl(xl: Path) -> None:
    """From level 10 to level 9 of 50, with guidance 3, by DDIM."""
    prior, pipeline = Prior.from_pretrained(xl), opened(xl)
    z, condition = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)), prior.conditions(["cat"])["cat"]
    points = prior.schedule.points(50)
    ours = prior.schedule.step(z, prior.slope(z, points[10], condition, 3.0), points[10], points[9])
    scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(50)
    text, null, pooled, null_pooled = pipeline.encode_prompt(PROMPT, device="cpu", num_images_per_prompt=2)
    ids = torch.tensor([[8.0, 8, 0, 0, 8, 8]] * 2)
    with torch.no_grad():
        with_text, without = (
            pipeline.unet(z, 201, encoder_hidden_states=hidden, added_cond_kwargs={"text_embeds": summary, "time_ids": ids}).sample
            for hidden, summary in ((text, pooled), (null, null_pooled))
        )
    theirs = scheduler.step(without + 3.0 * (with_text - without), 201, z).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_autoencoder_of_sdxl_stays_in_float32(xl: Path, tmp_path: Path) -> None:
    """It gives NaN in float16; one whose file says that it does not have to be upcast is in the network's precision."""
    prior = Prior.from_pretrained(xl, dtype=torch.float16)
    assert (prior.network.dtype, prior.vae.dtype) == (torch.float16, torch.float32)
    assert prior.denoiser.notes == ("its autoencoder is used in fp32, since SDXL's gives NaN for images in fp16",)
    assert prior.encode(torch.zeros(1, 3, 8, 8)).isfinite().all()
    prior.vae.register_to_config(force_upcast=False)
    prior.vae.save_pretrained(tmp_path / "fixed")
    assert Prior.from_pretrained(xl, dtype=torch.float16, autoencoder=tmp_path / "fixed").vae.dtype == torch.float16


def test_sd3_pads_clip_and_has_zeros_for_t5(sd3: Path) -> None:
    prior = Prior.from_pretrained(sd3)
    condition = prior.conditions(["cat"])["cat"]
    text, null, pooled, null_pooled = opened(sd3).encode_prompt(PROMPT, None, None)
    assert (prior.latent_shape, prior.image_size) == ((8, 4, 4), 8)
    assert condition.inputs["encoder_hidden_states"].shape == (16 + 256, 32)
    assert torch.equal(condition.inputs["encoder_hidden_states"], text[0])
    assert torch.equal(condition.inputs["pooled_projections"], pooled[0])
    assert condition.null is not None
    assert torch.equal(condition.null["encoder_hidden_states"], null[0])
    assert torch.equal(condition.null["pooled_projections"], null_pooled[0])


def test_sd3_with_t5_and_a_copy_that_lacks_it(tmp_path: Path) -> None:
    saved = stable_diffusion_3(tmp_path / "sd3", third=t5())
    prior, theirs = Prior.from_pretrained(saved), opened(saved).encode_prompt(PROMPT, None, None)
    inputs = prior.conditions(["cat"])["cat"].inputs
    torch.testing.assert_close(inputs["encoder_hidden_states"], theirs[0][0].detach())
    assert inputs["encoder_hidden_states"][16:].any()
    prior.save_pretrained(tmp_path / "again")
    assert Prior.from_pretrained(tmp_path / "again").fingerprint == prior.fingerprint
    shutil.rmtree(saved / "text_encoder_3")
    without = Prior.from_pretrained(saved)
    assert not without.conditions(["cat"])["cat"].inputs["encoder_hidden_states"][16:].any()
    assert without.fingerprint != prior.fingerprint


def test_a_step_of_sd3_is_eulers(sd3: Path) -> None:
    """From level 10 to level 9 of 50, with guidance 3, on a grid that is shifted by 3."""
    prior, pipeline = Prior.from_pretrained(sd3), opened(sd3)
    z, condition = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0)), prior.conditions(["cat"])["cat"]
    points = prior.schedule.points(50)
    ours = prior.schedule.step(z, prior.slope(z, points[10], condition, 3.0), points[10], points[9])
    pipeline.scheduler.set_timesteps(sigmas=[10 / 49, 9 / 49])
    timestep = pipeline.scheduler.timesteps[0]
    text, null, pooled, null_pooled = pipeline.encode_prompt(PROMPT, None, None, num_images_per_prompt=2)
    with torch.no_grad():
        with_text, without = (
            pipeline.transformer(z, hidden, summary, timestep.expand(2)).sample for hidden, summary in ((text, pooled), (null, null_pooled))
        )
    theirs = pipeline.scheduler.step(without + 3.0 * (with_text - without), timestep, z).prev_sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_latents_of_sd3_are_shifted_and_scaled(sd3: Path) -> None:
    prior, images = Prior.from_pretrained(sd3), torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        raw = opened(sd3).vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(prior.encode(images), (raw - 0.06) * 1.5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' Euler scheduler
@pytest.mark.parametrize("save", [stable_diffusion_xl, stable_diffusion_3])
def test_diffusers_opens_and_generates_before_and_after(save: Save, tmp_path: Path) -> None:
    first = save(tmp_path / "first")
    prior = Prior.from_pretrained(first)
    z, condition = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0)), prior.conditions(["cat"])["cat"]
    there = invert(prior, z, condition, level=5, steps=50)
    back = denoise(prior, there, condition, level=5, steps=50)
    assert float((back - z).abs().mean()) < 0.2 * float((there - z).abs().mean())
    prior.save_pretrained(tmp_path / "again")
    arguments: dict[str, Any] = {"prompt": PROMPT, "num_inference_steps": 2, "height": 8, "width": 8, "output_type": "np"}
    images = [opened(place)(**arguments, generator=torch.Generator().manual_seed(0)).images for place in (first, tmp_path / "again")]
    assert (images[0] == images[1]).all()
    assert Prior.from_pretrained(tmp_path / "again").fingerprint == prior.fingerprint
    assert prior.denoiser.example.inputs.keys() == condition.inputs.keys()


def test_a_side_that_patches_do_not_fill_is_refused(tmp_path: Path) -> None:
    saved = stable_diffusion_3(tmp_path / "sd3")
    for change in ({"sample_size": 5}, {"pos_embed_max_size": 1}):
        file = saved / "transformer" / "config.json"
        before = file.read_text()
        file.write_text(json.dumps({**json.loads(before), **change}))
        with pytest.raises(PriorError, match="patches of side 2"):
            Prior.from_pretrained(saved)
        file.write_text(before)
