"""Pretrained priors in the layout of facebook/DiT-XL-2-256, scaled down, as diffusers writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch

from d3hr import Prior, distill, load_images
from d3hr.errors import ClassMismatch, PriorError, SettingsError
from d3hr.prior.class_matching import match_classes
from d3hr.prior.families.dit import DiT
from d3hr.prior.families.registry import family_of
from d3hr.prior.repository import Repository
from tests.conftest import MakeFolder, hub_cache

LABELS = {0: "tench, Tinca tinca", 1: "goldfish, Carassius auratus", 2: "great white shark, white shark"}
SCHEDULER = {  # the file of facebook/DiT-XL-2-256
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.12.0.dev0", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
    "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one": True, "steps_offset": 0,
    "trained_betas": None,
}  # fmt: skip


def dit() -> diffusers.DiTTransformer2DModel:
    """DiT-XL/2's layout, learned sigma included: patch 2, twice as many channels out as in, random weights everywhere."""
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=4, patch_size=2,
        num_embeds_ada_norm=3,
    )  # fmt: skip
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return transformer


def vae(channels: int = 4) -> diffusers.AutoencoderKL:
    torch.manual_seed(1)
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8),
        latent_channels=channels, norm_num_groups=8, sample_size=8, scaling_factor=0.18215,
    )  # fmt: skip


def tiny_vae() -> diffusers.AutoencoderTiny:
    torch.manual_seed(2)
    widths = (8, 8)
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)
    )


Save = Callable[..., Path]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A DiTPipeline of random weights, saved by diffusers, with the class names that the Hub's repository has (diffusers drops them)."""
    folder = tmp_path / "dit"
    diffusers.DiTPipeline(dit(), vae(), diffusers.DDIMScheduler.from_config(SCHEDULER)).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    write_json(folder / "model_index.json", {**index, "id2label": LABELS})
    return folder


def as_of_2022(folder: Path) -> Path:
    """Rewrite a pipeline as its repository stands on the Hub: the older class name with its settings, weights as .bin files."""
    config = json.loads((folder / "transformer" / "config.json").read_text())
    legacy = {"cross_attention_dim": None, "num_vector_embeds": None, "only_cross_attention": False, "use_linear_projection": False}
    write_json(folder / "transformer" / "config.json", {**config, **legacy, "_class_name": "Transformer2DModel"})
    for part, network in (("transformer", dit()), ("vae", vae())):
        (folder / part / "diffusion_pytorch_model.safetensors").unlink()
        torch.save(network.state_dict(), folder / part / "diffusion_pytorch_model.bin")
    return folder


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def noise_of(prior: Prior) -> torch.Tensor:
    return prior.predict_noise(torch.ones(2, 4, 4, 4), 500, torch.tensor([0, 2]), 4.0)


def test_a_pipeline_of_diffusers_loads_and_distils(pipeline: Path, image_folder: MakeFolder, tmp_path: Path) -> None:
    """The whole way with learned sigma, the SD scaling factor and ImageNet labels; the folder is in no order of the prior's."""
    prior = Prior.from_pretrained(pipeline)
    assert prior.class_names == tuple(LABELS.values())
    assert (prior.latent_shape, prior.image_size) == ((4, 4, 4), 8)
    images = load_images(image_folder({"goldfish": 3, "n01440764": 3}))
    made = distill(images, prior, tmp_path / "set", ipc=2, steps=5, statistics_level=3, denoising_level=3, num_candidates=10)
    assert made.images.shape == (4, 3, 8, 8)
    assert [(entry.name, entry.conditioning_id) for entry in made.manifest.classes] == [("goldfish", 1), ("n01440764", 0)]


def test_classes_that_diffusers_left_without_names_are_called_by_their_numbers(pipeline: Path) -> None:
    """diffusers' own save_pretrained drops id2label; then nothing is assumed of what the classes are."""
    index = json.loads((pipeline / "model_index.json").read_text())
    write_json(pipeline / "model_index.json", {**index, "id2label": None})
    prior = Prior.from_pretrained(pipeline)
    assert prior.class_names == DiT.labels_in(Repository(str(pipeline))) == ("0", "1", "2")
    with pytest.raises(ClassMismatch, match="goldfish"):
        match_classes(["goldfish"], prior.class_names, of="the data")


def test_the_noise_is_the_first_half_of_a_learned_sigma(pipeline: Path) -> None:
    prior = Prior.from_pretrained(pipeline)
    z, y = torch.ones(2, 4, 4, 4), torch.tensor([0, 2])
    with torch.no_grad():
        theirs = dit().eval()(z, timestep=torch.tensor([500, 500]), class_labels=y).sample
    assert theirs.shape[1] == 8
    torch.testing.assert_close(prior.predict_noise(z, 500, y), theirs[:, :4])


def test_a_repository_as_it_stands_on_the_hub(pipeline: Path) -> None:
    """Older class names and weights-only .bin files give the same prior as the files of today."""
    today = Prior.from_pretrained(pipeline)
    older = Prior.from_pretrained(as_of_2022(pipeline))
    assert older.fingerprint == today.fingerprint
    assert torch.equal(noise_of(older), noise_of(today))


def test_a_bin_file_that_would_run_code_is_refused(pipeline: Path) -> None:
    """Weights are read as tensors only: a pickle that names a function is an error, and is not run."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("code of a weights file was run",))

    folder = as_of_2022(pipeline)
    torch.save({"x": Evil()}, folder / "transformer" / "diffusion_pytorch_model.bin")
    with pytest.raises(PriorError, match="cannot be loaded"):
        Prior.from_pretrained(folder)


@pytest.mark.parametrize("older", [False, True])
def test_a_hub_id_is_found_in_the_cache_without_network(pipeline: Path, offline: Path, older: bool) -> None:
    expected = noise_of(Prior.from_pretrained(pipeline))
    hub_cache(as_of_2022(pipeline) if older else pipeline, offline, "facebook/DiT-XL-2-256")
    prior = Prior.from_pretrained("facebook/DiT-XL-2-256")
    assert torch.equal(noise_of(prior), expected)
    assert prior.licence == "cc-by-nc-4.0"


def test_offline_without_a_copy_says_so(offline: Path) -> None:
    with pytest.raises(PriorError, match="HF_HUB_OFFLINE is set"):
        Prior.from_pretrained("facebook/DiT-XL-2-256")


def test_a_hub_out_of_reach_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where nobody listens stands for a Hub that cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PriorError, match="out of reach"):
        Prior.from_pretrained("facebook/DiT-XL-2-256")


def test_the_licence_of_the_card_goes_with_the_weights(pipeline: Path, tmp_path: Path) -> None:
    assert Prior.from_pretrained(pipeline).licence is None
    (pipeline / "README.md").write_text("---\nlicense: openrail\n---\n# A prior\n")
    prior = Prior.from_pretrained(pipeline)
    assert prior.licence == "openrail"
    prior.save_pretrained(tmp_path / "copy")
    assert Prior.from_pretrained(tmp_path / "copy").licence == "openrail"


@pytest.mark.parametrize("card", [b"---\nlicense: [\n---\n# A", b"---\n- mit\n---\n", b"\xff\xfe", b"# No metadata"])
def test_a_card_that_cannot_be_read_names_no_licence(pipeline: Path, card: bytes) -> None:
    (pipeline / "README.md").write_bytes(card)
    assert Prior.from_pretrained(pipeline).licence is None


def test_a_model_of_one_step_is_known_on_the_hub_by_its_name(pipeline: Path, offline: Path) -> None:
    hub_cache(pipeline, offline, "stabilityai/sd-turbo")
    with pytest.raises(PriorError, match=r"(?s)no path to invert.*the name stabilityai/sd-turbo.*distilled from"):
        Prior.from_pretrained("stabilityai/sd-turbo")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "README.md").write_text("---\nlicense: other\n---\n# SD-Turbo Model Card\n"), "'SD-Turbo Model Card'"),
        (lambda folder: (folder / "README.md").write_text("---\nbase_model: latent-consistency/lcm-sdxl\n---\n"), "lcm-sdxl"),
        (lambda folder: write_json(folder / "scheduler" / "scheduler_config.json", {**SCHEDULER, "_class_name": "TCDScheduler"}), "a TCDS"),
        (lambda folder: write_json(folder / "model_index.json", {"_class_name": "LatentConsistencyModelPipeline"}), "a LatentConsistency"),
        (
            lambda folder: write_json(folder / "model_index.json", {"_class_name": ["pipeline", "ConsistencyModelPipeline"]}),
            "a Consistency",
        ),
    ],
)
def test_a_copy_of_a_model_of_one_step_is_refused(pipeline: Path, change: Callable[[Path], object], words: str) -> None:
    """Whatever its folder is called; inspect, which reads no weights, says so too."""
    Prior.from_pretrained(pipeline)
    change(pipeline)
    with pytest.raises(PriorError, match=f"(?s)no path to invert.*{words}"):
        family_of(Repository(str(pipeline)))


def test_other_cards_are_not_taken_for_it(pipeline: Path) -> None:
    (pipeline / "README.md").write_text("---\nlicense: mit\nbase_model: [a/b]\n---\n# Birds\n\nTrained with PyTorch Lightning.\n")
    assert Prior.from_pretrained(pipeline).licence == "mit"


def test_an_unknown_family_is_named_with_those_that_work(pipeline: Path) -> None:
    write_json(pipeline / "model_index.json", {"_class_name": "FluxPipeline"})
    with pytest.raises(PriorError, match=r"FluxPipeline; d3hr can use DDPMPipeline, DiTPipeline, SiTPipeline, StableDiffusion3Pipeline"):
        Prior.from_pretrained(pipeline)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(pipeline: Path, dtype: torch.dtype) -> None:
    """The networks compute in the dtype asked for; latents, noise and pictures stay float32 and are near those of float32."""
    exact, half = Prior.from_pretrained(pipeline), Prior.from_pretrained(pipeline, dtype=dtype, device="cpu")
    assert half.network.dtype == half.vae.dtype == dtype
    assert half.fingerprint != exact.fingerprint
    assert half.num_bytes * 2 == exact.num_bytes
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for ours, theirs in (
        (half.encode(images), exact.encode(images)),
        (noise_of(half), noise_of(exact)),
        (half.decode(torch.ones(1, 4, 4, 4)), exact.decode(torch.ones(1, 4, 4, 4))),
    ):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.05


def test_unknown_precision_is_refused(pipeline: Path) -> None:
    with pytest.raises(SettingsError, match='float32, bfloat16, float16 or "auto"'):
        Prior.from_pretrained(pipeline, dtype=torch.int8)


def test_another_autoencoder(pipeline: Path, tmp_path: Path) -> None:
    """A folder of its own, or the one of another pipeline, of either class; saved with the prior, and part of its fingerprint."""
    tiny_vae().save_pretrained(tmp_path / "taesd")
    prior = Prior.from_pretrained(pipeline, autoencoder=tmp_path / "taesd")
    assert type(prior.vae).__name__ == "AutoencoderTiny"
    assert prior.image_size == 8
    assert prior.fingerprint != Prior.from_pretrained(pipeline).fingerprint
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(prior.encode(images), tiny_vae().eval().encode(images).latents)
    assert prior.decode(prior.encode(images)).shape == images.shape
    prior.save_pretrained(tmp_path / "copy")
    assert Prior.from_pretrained(tmp_path / "copy").fingerprint == prior.fingerprint
    assert Prior.from_pretrained(pipeline, autoencoder=tmp_path / "copy").fingerprint == prior.fingerprint


def test_a_shift_factor_is_taken_off_and_put_back(pipeline: Path) -> None:
    """Latents are (raw - shift) x scale; decoding undoes it."""
    prior = Prior.from_pretrained(pipeline)
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    plain, pictures = prior.encode(images), prior.decode(torch.ones(1, 4, 4, 4))
    prior.vae.register_to_config(shift_factor=0.5)
    torch.testing.assert_close(prior.encode(images), plain - 0.5 * 0.18215)
    torch.testing.assert_close(prior.decode(torch.ones(1, 4, 4, 4) - 0.5 * 0.18215), pictures)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink(), "transformer: "),
        (lambda folder: (folder / "vae" / "config.json").unlink(), "vae/config.json"),
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("{"), "scheduler_config.json"),
        (lambda folder: write_json(folder / "scheduler" / "scheduler_config.json", {}), "no betas"),
        (lambda folder: write_json(folder / "vae" / "config.json", {"_class_name": "VQModel"}), "AutoencoderTiny and AutoencoderDC"),
        (lambda folder: vae(channels=3).save_pretrained(folder / "vae"), "4 input channels, 3 latent channels"),
        (lambda folder: write_json(folder / "model_index.json", []), "not a JSON object"),
    ],
)
def test_what_does_not_fit_is_refused(pipeline: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(pipeline)
    with pytest.raises(PriorError, match=words):
        Prior.from_pretrained(pipeline)


def test_weights_that_are_not_there_are_not_made_up(pipeline: Path) -> None:
    """diffusers fills gaps with random numbers; d3hr does not."""
    from safetensors.torch import load_file, save_file

    file = pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["proj_out_2.bias"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(PriorError, match=r"lacks 1 weights, such as proj_out_2\.bias"):
        Prior.from_pretrained(pipeline)
