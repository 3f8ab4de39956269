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


def test_other_predictions_are_refused() -> None:
    with pytest.raises(PriorError, match="v_prediction"):
        Schedule.from_config({**SCHEDULER_CONFIG, "prediction_type": "v_prediction"})
