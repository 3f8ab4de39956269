import diffusers
import numpy as np
import pytest
import torch

from d3hr.errors import PriorError, SettingsError
from d3hr.prior.networks import SCHEDULER_CONFIG
from d3hr.prior.schedule import Schedule


def test_alphas_are_those_of_the_linear_schedule() -> None:
    """abar_t is the product of 1 - beta over t + 1 betas evenly spaced from 0.0001 to 0.02."""
    schedule = Schedule.from_config(SCHEDULER_CONFIG)
    expected = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
    assert schedule.alphas_cumprod.dtype == torch.float64
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), expected, rtol=1e-5)


def test_grid_is_leading_and_ascending() -> None:
    schedule = Schedule.from_config(SCHEDULER_CONFIG)
    assert schedule.grid(50).tolist() == list(range(0, 1000, 20))
    assert schedule.grid(1000)[-1] == 999
    assert Schedule.from_config({**SCHEDULER_CONFIG, "steps_offset": 1}).grid(50)[:2].tolist() == [1, 21]


@pytest.mark.parametrize("steps", [0, 1001])
def test_grid_out_of_range(steps: int) -> None:
    with pytest.raises(SettingsError, match="1 to 1000"):
        Schedule.from_config(SCHEDULER_CONFIG).grid(steps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_is_turned_into_noise(prediction: str) -> None:
    """Of z = sqrt(a) x + sqrt(1-a) e a perfect network says e, sqrt(a) e - sqrt(1-a) x, or x: each means e."""
    schedule = Schedule.from_config({**SCHEDULER_CONFIG, "prediction_type": prediction})
    x, e = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for timestep in (0, 20, 620, 999):
        a = schedule.alphas_cumprod[timestep]
        z = a.sqrt() * x + (1 - a).sqrt() * e
        said = {"epsilon": e, "v_prediction": a.sqrt() * e - (1 - a).sqrt() * x, "sample": x}[prediction]
        torch.testing.assert_close(schedule.target(x, e, a), said)
        torch.testing.assert_close(schedule.noise(said, z, timestep), e)


@pytest.mark.parametrize("steps", [7, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spacing_is_that_of_diffusers(spacing: str, steps: int) -> None:
    config = {**SCHEDULER_CONFIG, "timestep_spacing": spacing, "steps_offset": 1 if spacing == "leading" else 0}
    theirs = diffusers.DDIMScheduler.from_config(config)
    theirs.set_timesteps(steps)
    assert Schedule.from_config(config).grid(steps).tolist() == theirs.timesteps.tolist()[::-1]


def test_clean_latents_stand_at_the_first_timestep() -> None:
    """Level 0 has alphas_cumprod[0] whatever the offset; the levels above have that of their timestep."""
    schedule = Schedule.from_config({**SCHEDULER_CONFIG, "steps_offset": 1})
    alphas = schedule.alphas_cumprod
    assert schedule.path(2, 50) == [(1, float(alphas[0])), (21, float(alphas[21])), (41, float(alphas[41]))]


def test_a_level_without_signal_is_refused() -> None:
    """Zero terminal SNR (arXiv 2305.08891): the last timestep is pure noise, from which no step leads."""
    config = {**SCHEDULER_CONFIG, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    schedule = Schedule.from_config(config)
    assert schedule.path(48, 50)
    with pytest.raises(SettingsError, match="lower level"):
        schedule.path(49, 50)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prediction_type": "flow"}, "'epsilon' or 'v_prediction' or 'sample'"),
        ({"timestep_spacing": "karras"}, "'leading' or 'trailing' or 'linspace'"),
        ({"clip_sample": True}, "clip_sample is not False"),
        ({"thresholding": True}, "thresholding is not False"),
    ],
)
def test_schedules_that_inversion_cannot_follow_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(PriorError, match=words):
        Schedule.from_config({**SCHEDULER_CONFIG, **change})


def test_flow_matching_is_refused() -> None:
    with pytest.raises(PriorError, match="no betas"):
        Schedule.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0})
