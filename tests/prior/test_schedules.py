import diffusers
import numpy as np
import pytest
import torch

from d3hr.errors import PriorError, SettingsError
from d3hr.prior.networks import SCHEDULER_CONFIG
from d3hr.prior.schedules.flow_matching import FlowMatching
from d3hr.prior.schedules.reading import read_schedule
from d3hr.prior.schedules.schedule import Point, TrainableSchedule
from d3hr.prior.schedules.variance_preserving import VariancePreserving


def test_alphas_are_those_of_the_linear_schedule() -> None:
    """abar_t is the product of 1 - beta over t + 1 betas evenly spaced from 0.0001 to 0.02."""
    schedule = VariancePreserving.from_config(SCHEDULER_CONFIG)
    expected = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000))
    assert schedule.alphas_cumprod.dtype == torch.float64
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), expected, rtol=1e-5)


def test_grid_is_leading_and_ascending() -> None:
    schedule = VariancePreserving.from_config(SCHEDULER_CONFIG)
    assert schedule.grid(50).tolist() == list(range(0, 1000, 20))
    assert schedule.grid(1000)[-1] == 999
    assert VariancePreserving.from_config({**SCHEDULER_CONFIG, "steps_offset": 1}).grid(50)[:2].tolist() == [1, 21]


@pytest.mark.parametrize("steps", [0, 1001])
def test_grid_out_of_range(steps: int) -> None:
    with pytest.raises(SettingsError, match="1 to 1000"):
        VariancePreserving.from_config(SCHEDULER_CONFIG).grid(steps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_is_turned_into_noise(prediction: str) -> None:
    """Of z = sqrt(a) x + sqrt(1-a) e a perfect network says e, sqrt(a) e - sqrt(1-a) x, or x: each means e."""
    schedule = VariancePreserving.from_config({**SCHEDULER_CONFIG, "prediction_type": prediction})
    x, e = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for timestep in (0, 20, 620, 999):
        a = schedule.alphas_cumprod[timestep]
        z = a.sqrt() * x + (1 - a).sqrt() * e
        said = {"epsilon": e, "v_prediction": a.sqrt() * e - (1 - a).sqrt() * x, "sample": x}[prediction]
        torch.testing.assert_close(schedule.target(x, e, a.sqrt(), (1 - a).sqrt()), said)
        torch.testing.assert_close(schedule.slope(said, z, schedule.at(timestep)), e)


@pytest.mark.parametrize("steps", [7, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spacing_is_that_of_diffusers(spacing: str, steps: int) -> None:
    config = {**SCHEDULER_CONFIG, "timestep_spacing": spacing, "steps_offset": 1 if spacing == "leading" else 0}
    theirs = diffusers.DDIMScheduler.from_config(config)
    theirs.set_timesteps(steps)
    assert VariancePreserving.from_config(config).grid(steps).tolist() == theirs.timesteps.tolist()[::-1]


def test_clean_latents_stand_at_the_first_timestep() -> None:
    """Level 0 has alphas_cumprod[0] whatever the offset; the levels above have that of their timestep."""
    schedule = VariancePreserving.from_config({**SCHEDULER_CONFIG, "steps_offset": 1})
    alphas = schedule.alphas_cumprod
    expected = [(t, float(alphas[at]) ** 0.5, (1 - float(alphas[at])) ** 0.5) for t, at in ((1, 0), (21, 21), (41, 41))]
    assert [tuple(point) for point in schedule.path(2, 50)] == expected


def test_a_level_without_signal_is_refused() -> None:
    """Zero terminal SNR (arXiv 2305.08891): the last timestep is pure noise, from which no step leads."""
    config = {**SCHEDULER_CONFIG, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    schedule = VariancePreserving.from_config(config)
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
        read_schedule({**SCHEDULER_CONFIG, **change})


def test_a_schedule_without_numbers_is_refused() -> None:
    with pytest.raises(PriorError, match="no betas"):
        read_schedule({"_class_name": "VQDiffusionScheduler"})


FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
EDM = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.01, "sigma_max": 20.0, "sigma_data": 0.5, "prediction_type": "epsilon"}
CONFIGS = {
    "preserving": SCHEDULER_CONFIG,
    "v": {**SCHEDULER_CONFIG, "prediction_type": "v_prediction"},
    "sample": {**SCHEDULER_CONFIG, "prediction_type": "sample"},
    "flow": FLOW,
    "exploding": EDM,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_along_the_known_slope_keeps_image_and_noise(name: str) -> None:
    """z_a = alpha_a x + sigma_a e goes to z_b = alpha_b x + sigma_b e, up, down and to the same point, by float64 NumPy."""
    schedule = read_schedule(CONFIGS[name])
    x, e = np.random.default_rng(0).standard_normal((2, 3, 4, 2, 2))
    points = schedule.points(50)
    for start, end in ((points[3], points[30]), (points[30], points[3]), (points[9], points[9])):
        slope = torch.from_numpy(e - schedule.kappa * x)
        moved = schedule.step(torch.from_numpy(start.alpha * x + start.sigma * e), slope, start, end)
        np.testing.assert_allclose(moved.numpy(), end.alpha * x + end.sigma * e, rtol=0, atol=1e-12 * max(1, end.sigma))
        clean, noise = schedule.split(torch.from_numpy(start.alpha * x + start.sigma * e), slope, start)
        np.testing.assert_allclose(clean.numpy(), x, atol=1e-11 * max(1, start.sigma))
        np.testing.assert_allclose(noise.numpy(), e, atol=1e-11 * max(1, start.sigma))


def test_the_step_of_a_flow_is_eulers() -> None:
    schedule = read_schedule(FLOW)
    z, v = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start, end = schedule.points(20)[-1], schedule.points(20)[10]
    assert (start.alpha, start.sigma) == (0, 1)
    torch.testing.assert_close(schedule.step(z, v, start, end), z + (end.sigma - start.sigma) * v, rtol=0, atol=1e-14)


def test_the_points_of_a_flow_are_those_of_diffusers() -> None:
    """diffusers goes from sigma = 1 to 1/1000 in n points, and ends at 0; shift 3 moves both alike."""
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_config(FLOW)
    sigmas = np.linspace(1, 0, 21)[:-1]
    theirs.set_timesteps(sigmas=sigmas.tolist())
    points = read_schedule(FLOW).points(21)
    np.testing.assert_allclose([point.sigma for point in points][::-1], theirs.sigmas.numpy(), atol=1e-6)
    np.testing.assert_allclose([point.t for point in points][:0:-1], theirs.timesteps.numpy(), atol=1e-3)


@pytest.mark.parametrize("output", ["epsilon", "v_prediction"])
def test_an_exploding_schedule_is_preconditioned_as_in_diffusers(output: str) -> None:
    config = {**EDM, "prediction_type": output}
    theirs = diffusers.EDMEulerScheduler.from_config(config)
    theirs.set_timesteps(12)
    schedule = read_schedule(config)
    points = schedule.points(12)
    np.testing.assert_allclose([point.sigma for point in points][::-1], theirs.sigmas.numpy()[:-1], rtol=1e-5)
    np.testing.assert_allclose([point.t for point in points][::-1], theirs.timesteps.numpy(), rtol=1e-4)
    z, raw = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    point = points[7]
    clean = theirs.precondition_outputs(z, raw, torch.tensor(point.sigma, dtype=torch.float64))
    torch.testing.assert_close(schedule.split(z, schedule.slope(raw, z, point), point).clean, clean)
    scaled = theirs.precondition_inputs(z, torch.tensor(point.sigma))
    torch.testing.assert_close(schedule.network_input(z, point), scaled, rtol=1e-6, atol=0)
    assert schedule.noise_scale == pytest.approx(float(theirs.init_noise_sigma), rel=0.01)  # theirs is for data of unit scale


@pytest.mark.parametrize("name", ["preserving", "v", "sample", "flow"])
def test_training_and_sampling_agree(name: str) -> None:
    """What a network learns to put out at random times is what the slope is read from."""
    schedule = read_schedule(CONFIGS[name])
    assert isinstance(schedule, TrainableSchedule)
    generator = torch.Generator().manual_seed(0)
    x, e = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    times = schedule.random_times(6, generator, torch.device("cpu"))
    for t, alpha, sigma, clean, noise in zip(*times, x, e, strict=True):
        point = Point(t.item(), alpha.item(), sigma.item())
        output = schedule.target(clean, noise, torch.tensor(point.alpha), torch.tensor(point.sigma))
        slope = schedule.slope(output, point.alpha * clean + point.sigma * noise, point)
        torch.testing.assert_close(slope, schedule.true_slope(clean, noise), rtol=1e-4, atol=1e-4)


def test_a_flow_from_noise_to_data_counts_backwards() -> None:
    """SiT: time 1 is data, and the output is data less noise."""
    schedule = FlowMatching(time_scale=1.0, from_noise=True)
    x, e = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    point = schedule.at(0.3)
    assert point == pytest.approx((0.7, 0.7, 0.3))
    torch.testing.assert_close(schedule.slope(x - e, x, point), e - x)
    torch.testing.assert_close(schedule.target(x, e, torch.tensor(0.7), torch.tensor(0.3)), x - e)
