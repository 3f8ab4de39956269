"""Priors that learn noise, v, or the velocity of a flow: what is written, what diffusers makes of it, and the arithmetic they train in."""

import json
from pathlib import Path
from typing import Any, get_args

import diffusers
import pytest
import torch

from d3hr import ImageData, Prior, fit_prior
from d3hr.cli.options import Loading
from d3hr.distillation.ddim import denoise, invert
from d3hr.errors import SettingsError
from d3hr.fileio.atomic import read_json
from d3hr.prior.fit import training_schedule
from d3hr.prior.model import PRECISIONS
from d3hr.prior.networks import SCHEDULER_CONFIG, SCHEDULER_CONFIGS
from d3hr.prior.precision import Units, training_precision
from d3hr.prior.repository import write_pipeline
from d3hr.prior.schedules.flow_matching import FlowMatching
from d3hr.prior.schedules.reading import read_schedule
from d3hr.prior.settings import Objective, fit_settings
from tests.conftest import RecordingProgress, untrained_prior

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


pytestmark = pytest.mark.usefixtures("small_networks")


def fit(digits: ImageData, out: Path, **changes: Any) -> Prior:
    return fit_prior(digits, out, **{"steps": 12, "autoencoder_steps": 8, **changes})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_prior_of_each_objective(objective: Objective, digits: ImageData, tmp_path: Path) -> None:
    """It is read as its schedule; saved, loaded and loaded by diffusers it is the same; the fixed point's round trip is exact."""
    prior = fit(digits, tmp_path / "prior", objective=objective)
    assert isinstance(prior.schedule, FlowMatching) == (objective == "flow")
    assert read_json(tmp_path / "prior" / "run.json")["settings"]["objective"] == objective
    prior.save_pretrained(tmp_path / "copy")
    assert Prior.from_pretrained(tmp_path / "copy").fingerprint == prior.fingerprint
    condition = prior.conditions(["3"])["3"]
    clean = prior.encode(digits.pick("3", range(4)))
    noisy = invert(prior, clean, condition, level=8, steps=12, guidance_scale=1.0, solver="fixed_point")
    back = denoise(prior, noisy, condition, level=8, steps=12, guidance_scale=1.0)
    assert float((back - clean).abs().max()) < 1e-3 < float((noisy - clean).abs().max())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' DPM-Solver, under NumPy 2
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_diffusers_draws_from_a_prior_of_each_objective(objective: Objective, digits_prior: Prior, tmp_path: Path) -> None:
    """diffusers' own pipeline opens the folder and draws what d3hr draws from the same noise, by Euler's or DDIM's steps."""
    prior = Prior(digits_prior.denoiser, digits_prior.vae, SCHEDULER_CONFIGS[objective])
    prior.save_pretrained(tmp_path / "prior")
    pipeline = diffusers.DiTPipeline.from_pretrained(tmp_path / "prior")
    if objective == "flow":
        # DPM-Solver++ of the first order is DDIM's step, which is Euler's for a flow.
        assert isinstance(pipeline.scheduler, diffusers.DPMSolverMultistepScheduler)
        pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, solver_order=1)
    else:
        assert isinstance(pipeline.scheduler, diffusers.DDIMScheduler)
    drawn = pipeline([3], guidance_scale=1, num_inference_steps=100, output_type="np", generator=torch.Generator().manual_seed(0)).images
    noise = torch.randn(1, *prior.latent_shape, generator=torch.Generator().manual_seed(0))
    ours = prior.decode(denoise(prior, noise, torch.tensor([3]), level=99, steps=100, guidance_scale=1.0))
    theirs = torch.from_numpy(drawn).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours / 2 + 0.5, theirs, atol=0.02, rtol=0)


def test_levels_of_a_flow_have_the_noise_of_those_of_dit() -> None:
    """At the levels of the presets, sigma / alpha is 0.73 to 1 times as large, so that a preset means the same with each objective."""
    of_noise, of_flow = (read_schedule(SCHEDULER_CONFIGS[objective]).points(50) for objective in ("epsilon", "flow"))
    for level in (5, 25, 31):
        noise, flow = of_noise[level], of_flow[level]
        assert 0.73 < (flow.sigma / flow.alpha) / (noise.sigma / noise.alpha) < 1.01


def test_a_flow_is_trained_at_times_that_no_grid_shifts(digits_prior: Prior) -> None:
    """Logit-normal times have their median at a sigma of 0.5, whatever the shift of the levels."""
    flow = Prior(digits_prior.denoiser, digits_prior.vae, SCHEDULER_CONFIGS["flow"])
    t, alpha, sigma = training_schedule(flow).random_times(4001, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert 0.47 < float(sigma.median()) < 0.53
    torch.testing.assert_close(t, 1000 * sigma)
    torch.testing.assert_close(alpha, 1 - sigma)


def test_a_pretrained_prior_keeps_its_objective(digits: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--objective is for a new transformer"):
        fit_settings(init="x", objective="flow")
    flow = Prior(digits_prior.denoiser, digits_prior.vae, SCHEDULER_CONFIGS["flow"])
    assert isinstance(fit_prior(digits, tmp_path / "prior", init=flow, steps=2).schedule, FlowMatching)


def test_a_scheduler_keeps_its_class_unless_diffusers_has_none_of_that_name(tmp_path: Path) -> None:
    """A name that is no scheduler's, such as that of a network, is never opened."""
    named = {
        "DDIMScheduler": "DDIMScheduler",
        "EulerDiscreteScheduler": "EulerDiscreteScheduler",
        "AutoencoderKL": "DDIMScheduler",
        "OfAnotherVersion": "DDIMScheduler",
    }
    for name, expected in named.items():
        write_pipeline(tmp_path / name, "DiTPipeline", {}, {**SCHEDULER_CONFIG, "_class_name": name}, {}, None)
        assert read_json(tmp_path / name / "scheduler" / "scheduler_config.json")["_class_name"] == expected
        assert json.loads((tmp_path / name / "model_index.json").read_text())["scheduler"] == ["diffusers", expected]


@pytest.mark.parametrize(
    ("units", "width", "expected"),
    [
        (Units("cpu"), 768, "fp32"),
        (Units("cpu", avx512_bf16=True), 768, "bf16"),
        (Units("cpu", amx=True), 192, "bf16"),
        (Units("cpu", amx=True), 96, "fp32"),
        (Units("cuda", (7, 5)), 768, "fp32"),
        (Units("cuda", (8, 0)), 96, "bf16"),
        (Units("cuda", (9, 0)), 768, "bf16"),
        (Units("mps"), 768, "fp32"),
    ],
)
def test_the_precision_follows_from_the_units(units: Units, width: int, expected: str) -> None:
    assert training_precision(units, width) == expected


@pytest.mark.parametrize(
    ("units", "precision"),
    [(Units("cpu"), "fp32"), (Units("cpu", amx=True), "fp32"), (Units("cuda", (8, 0)), "bf16"), (Units("cuda", (7, 5)), "fp32")],
)
def test_a_prior_is_held_in_what_the_device_has_units_for(
    units: Units, precision: str, digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``auto`` is the same prior as the precision that it comes to, and a set says which that is. This network is too narrow for a CPU."""
    folder = tmp_path / "prior"
    untrained_prior(digits.class_names).save_pretrained(folder)
    monkeypatch.setattr(Units, "of", classmethod(lambda _, device: units))
    chosen = Prior.from_pretrained(folder, device="cpu", dtype="auto")
    stated = Prior.from_pretrained(folder, device="cpu", dtype=PRECISIONS[precision])
    assert chosen.precision == chosen.record.precision == precision
    assert chosen.fingerprint == stated.fingerprint
    assert Prior.from_pretrained(folder, device="cpu").precision == "fp32"
    progress = RecordingProgress()
    assert Loading(device="cpu").load(str(folder), progress).precision == precision
    assert any("--precision fp32" in line for line in progress.lines) == (precision == "bf16")
    with pytest.raises(SettingsError, match="Unknown precision"):
        Prior.from_pretrained(folder, dtype=torch.float64)


def test_units_are_those_of_this_machine() -> None:
    assert Units.of(torch.device("cpu")).kind == "cpu"
    assert Units.of(torch.device("mps")) == Units("mps")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_continued_fit_keeps_its_precision(precision: str, digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun on a machine with units for bfloat16 and continued on one without, or the other way round, a fit is the same run."""
    out = tmp_path / "prior"

    def fit_there(there: Units) -> Any:
        monkeypatch.setattr(Units, "of", classmethod(lambda _, device: there))
        fit(digits.divided(0.95)[0], out, steps=1, autoencoder_steps=1)
        return read_json(out / "run.json")["settings"]["precision"]

    with_units, without = Units("cuda", (9, 0)), Units("cpu")
    assert fit_there(with_units if precision == "bf16" else without) == precision
    out.rename(tmp_path / "prior.partial")  # as if it had been stopped
    assert fit_there(without if precision == "bf16" else with_units) == precision
