import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from d3hr import Prior
from d3hr.errors import PriorError, SettingsError
from d3hr.prior.autoencoder import psnr_db
from d3hr.prior.families.dit import DiT
from d3hr.prior.networks import SCHEDULER_CONFIG, new_autoencoder, new_transformer
from d3hr.prior.presets import PRESETS, prior_preset
from d3hr.prior.settings import fit_settings, fitting_image_size
from tests.conftest import SMALL, untrained_prior

NAMES = ("ant", "bee", "king penguin, Aptenodytes")


@pytest.fixture
def prior() -> Prior:
    return untrained_prior(NAMES)


def inputs(prior: Prior) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, *prior.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1])


def test_psnr_by_hand() -> None:
    """An error of 0.2 everywhere is a mean square of 0.04 under a peak of 2: 10 log10(4 / 0.04) = 20 dB. No error counts as 100 dB.

    Where one image of 65 has the error and 64 have none, the mean square is 0.04 / 65: 20 + 10 log10(65) dB.
    """
    x = torch.zeros(65, 3, 4, 4)
    assert psnr_db(x, x + 0.2) == pytest.approx(20)
    assert psnr_db(x, x) == 100
    last = torch.arange(65)[:, None, None, None] == 64
    assert psnr_db(x, x + 0.2 * last) == pytest.approx(20 + 10 * math.log10(65))


def test_a_saved_prior_is_the_same_prior(prior: Prior, tmp_path: Path) -> None:
    prior.save_pretrained(tmp_path)
    loaded = Prior.from_pretrained(tmp_path)
    z, y = inputs(prior)
    assert loaded.class_names == NAMES
    assert loaded.fingerprint == prior.fingerprint
    assert torch.equal(loaded.predict_noise(z, 500, y, 4.0), prior.predict_noise(z, 500, y, 4.0))
    assert not list(tmp_path.rglob("*.bin"))


def test_diffusers_opens_it_and_agrees(prior: Prior, tmp_path: Path) -> None:
    """DiTPipeline loads the folder and draws from it (guidance aside: it takes 1000 for the null class of any prior), and its transformer
    gives our noise."""
    prior.save_pretrained(tmp_path)
    pipeline = diffusers.DiTPipeline.from_pretrained(tmp_path)
    z, y = inputs(prior)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.labels["bee"] == 1
    assert pipeline([1], num_inference_steps=2, guidance_scale=1.0).images[0].size == (8, 8)
    with torch.no_grad():
        theirs = pipeline.transformer.eval()(z, timestep=torch.full((3,), 500), class_labels=y).sample
    torch.testing.assert_close(prior.predict_noise(z, 500, y), theirs)


def test_guidance_extrapolates_from_the_null_class(prior: Prior) -> None:
    """eps_null + g (eps_class - eps_null), the null class being the row after the last class; at g = 0 it is eps_null."""
    z, y = inputs(prior)
    null = prior.predict_noise(z, 500, torch.full((3,), 3))
    conditional = prior.predict_noise(z, 500, y)
    assert not torch.allclose(null, conditional, atol=1e-3)
    torch.testing.assert_close(prior.predict_noise(z, 500, y, 0.0), null)
    torch.testing.assert_close(prior.predict_noise(z, 500, y, 3.0), null + 3 * (conditional - null), atol=1e-5, rtol=1e-4)


def test_no_guidance_is_one_call(prior: Prior) -> None:
    """The batch that reaches the network is N at g = 1 and 2N otherwise."""
    sizes: list[int] = []
    z, y = inputs(prior)
    with prior.network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0]))):
        prior.predict_noise(z, 0, y, 1.0)
        prior.predict_noise(z, 0, y, 1.5)
    assert sizes == [3, 6]


def test_attention_is_pytorchs_own(prior: Prior) -> None:
    """Each of the two blocks calls scaled_dot_product_attention once, which picks the device's fastest kernel."""
    z, y = inputs(prior)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        prior.predict_noise(z, 500, y)
    assert [event.name for event in profile.events()].count("aten::scaled_dot_product_attention") == 2


@pytest.mark.slow
def test_a_compiled_prior_is_the_same_prior(prior: Prior, tmp_path: Path) -> None:
    """Same fingerprint and noise, for every size of batch from two compilations (one image alone is a case of its own), also unpickled."""
    runs: list[torch.fx.GraphModule] = []

    @torch._dynamo.register_backend(name="counted")
    def counted(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        return lambda *arguments: (runs.append(graph), graph.forward(*arguments))[1]  # type: ignore[func-returns-value]

    prior.save_pretrained(tmp_path / "prior")
    compiled = Prior.from_pretrained(tmp_path / "prior")
    torch._dynamo.reset()
    compiled.compile("counted")
    assert compiled.fingerprint == prior.fingerprint
    counters = torch._dynamo.utils.counters["stats"]
    for size, guidance in ((3, 4.0), (5, 1.0), (4, 4.0), (1, 1.0)):
        z, y = torch.randn(size, *prior.latent_shape), torch.arange(size) % 4
        torch.testing.assert_close(compiled.predict_noise(z, 500, y, guidance), prior.predict_noise(z, 500, y, guidance))
    assert counters["unique_graphs"] == 2
    z, y = inputs(prior)
    again = pickle.loads(pickle.dumps(compiled))
    runs.clear()
    torch.testing.assert_close(again.predict_noise(z, 500, y), prior.predict_noise(z, 500, y))
    assert len(runs) == 1


@pytest.mark.slow
def test_a_compiler_that_fails_is_said_at_once(prior: Prior) -> None:
    """The prior stays as it was, uncompiled."""

    @torch._dynamo.register_backend(name="broken")
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    with pytest.raises(SettingsError, match=r"(?s)could not be compiled.*no compiler here.*leave --compile out"):
        prior.compile("broken")
    z, y = inputs(prior)
    assert torch.equal(prior.predict_noise(z, 500, y), untrained_prior(NAMES).predict_noise(z, 500, y))


def test_learned_variance_is_left_out() -> None:
    """A transformer with twice the output channels predicts the noise in the first half."""
    torch.manual_seed(0)
    wide = new_transformer(SMALL, (4, 4), 2)
    config = {**wide.config, "out_channels": 8}
    wide = diffusers.DiTTransformer2DModel.from_config(config)
    prior = Prior(DiT(wide, ("a", "b")), new_autoencoder(SMALL, 8), SCHEDULER_CONFIG)
    z = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        both = wide(z, timestep=torch.tensor([7, 7]), class_labels=torch.tensor([0, 1])).sample
    torch.testing.assert_close(prior.predict_noise(z, 7, torch.tensor([0, 1])), both[:, :4])


def test_precision_of_latents_is_kept(prior: Prior) -> None:
    z, y = inputs(prior)
    assert prior.predict_noise(z.double(), 3, y).dtype == torch.float64


def test_encode_scales_and_decode_undoes_it(prior: Prior) -> None:
    """Latents are the posterior mean times the scaling factor; decoding divides by it."""
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    plain = prior.encode(images)
    decoded = prior.decode(plain)
    factor = prior.vae.config.scaling_factor
    prior.vae.register_to_config(scaling_factor=2 * factor)
    torch.testing.assert_close(prior.encode(images), 2 * plain)
    torch.testing.assert_close(prior.decode(2 * plain), decoded)
    assert decoded.abs().max() <= 1
    with pytest.raises(SettingsError, match=r"\[N, 3, 8, 8\]"):
        prior.encode(torch.zeros(2, 3, 16, 16))


def test_parts_that_do_not_fit_are_refused() -> None:
    transformer = new_transformer(SMALL, (4, 4), 2)
    with pytest.raises(PriorError, match="2 classes in the transformer, 3 names"):
        Prior(DiT(transformer, NAMES), new_autoencoder(SMALL, 8), SCHEDULER_CONFIG)
    other = SMALL.model_copy(update={"latent_channels": 3})
    with pytest.raises(PriorError, match="4 input channels, 3 latent channels"):
        Prior(DiT(transformer, ("a", "b")), new_autoencoder(other, 8), SCHEDULER_CONFIG)


def test_folders_that_are_no_prior_are_refused(prior: Prior, tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="no prior at"):
        Prior.from_pretrained(tmp_path / "missing")
    with pytest.raises(PriorError, match="model_index"):
        Prior.from_pretrained(tmp_path)
    prior.save_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(PriorError, match="FluxPipeline"):
        Prior.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("preset", "size", "latent", "tokens"), [("tiny", 8, 4, 16), ("tiny", 32, 8, 16), ("small", 32, 16, 64), ("base", 256, 32, 256)]
)
def test_presets_fit_their_image_sizes(preset: str, size: int, latent: int, tokens: int) -> None:
    """Latent side and number of tokens are those the preset names."""
    with torch.device("meta"):
        vae = new_autoencoder(PRESETS[preset], size)
    latent_side = size // 2 ** (len(vae.config.block_out_channels) - 1)
    assert latent_side == latent
    transformer = new_transformer(PRESETS[preset].model_copy(update={"layers": 1}), (4, latent_side), 10)
    assert (transformer.config.sample_size // transformer.config.patch_size) ** 2 == tokens


def test_image_sizes_are_rounded_up_into_the_range() -> None:
    assert [fitting_image_size(fit_settings(preset="tiny"), size) for size in (5, 8, 28, 64)] == [8, 8, 32, 32]
    with pytest.raises(SettingsError, match="tiny, compact, small, base"):
        prior_preset("huge")


def test_a_new_transformer_starts_from_nothing() -> None:
    """DiT's initialisation: zero modulation and zero output, so the first prediction is zero noise."""
    transformer = new_transformer(SMALL, (4, 4), 3)
    output = transformer(torch.randn(2, 4, 4, 4), timestep=torch.tensor([1, 2]), class_labels=torch.tensor([0, 1])).sample
    assert not output.any()


def test_a_prior_travels_as_its_name(tmp_path: Path) -> None:
    """The copy has the same weights and precision; one that is not on disk, or has changed there, cannot travel."""
    with pytest.raises(PriorError, match="in memory"):
        pickle.dumps(untrained_prior(("ant", "bee")))
    untrained_prior(("ant", "bee")).save_pretrained(tmp_path / "prior")
    prior = Prior.from_pretrained(tmp_path / "prior", dtype=torch.bfloat16)
    sent = pickle.dumps(prior)
    assert len(sent) < 1000
    assert pickle.loads(sent).fingerprint == prior.fingerprint
    prior.save_pretrained(tmp_path / "changed")
    sent = pickle.dumps(Prior.from_pretrained(tmp_path / "changed"))
    untrained_prior(("cow", "dog")).save_pretrained(tmp_path / "changed")
    with pytest.raises(PriorError, match="not the same prior"):
        pickle.loads(sent)


@pytest.mark.parametrize(("device", "current", "sent"), [("cuda:1", 0, "cuda:1"), ("cuda:1", 1, "cuda"), ("cuda:0", 0, "cuda")])
def test_a_prior_travels_with_the_number_of_its_gpu(
    device: str, current: int, sent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is the GPU that its process uses anyway: then it goes to the one that the other process uses."""
    untrained_prior(("ant", "bee")).save_pretrained(tmp_path / "prior")
    prior = Prior.from_pretrained(tmp_path / "prior")
    monkeypatch.setattr(Prior, "device", torch.device(device))
    monkeypatch.setattr("torch.cuda.current_device", lambda: current)
    assert prior.__reduce__()[1][1] == sent


def test_a_process_that_is_given_another_gpu_loads_the_prior_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only then: the prior that it has is used again on the same GPU."""
    untrained_prior(("ant", "bee")).save_pretrained(tmp_path / "prior")
    load, current, used = Prior.from_pretrained, [0], list[str]()

    def load_on(path: str, *, device: str, **options: Any) -> Prior:
        used.append(device)
        return load(path, device="cpu", **options)

    prior = load(tmp_path / "prior")
    with monkeypatch.context() as fake:
        fake.setattr(Prior, "device", torch.device("cuda:0"))
        fake.setattr("torch.cuda.device_count", lambda: 2)
        fake.setattr("torch.cuda.current_device", lambda: current[0])
        sent = pickle.dumps(prior)
        fake.setattr(Prior, "from_pretrained", load_on)
        for gpu in (0, 0, 1, 1):
            current[0] = gpu
            pickle.loads(sent)
    assert used == ["cuda:0", "cuda:1"]
