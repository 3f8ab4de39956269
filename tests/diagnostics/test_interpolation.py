"""The interpolation test on exact priors, whose inversion finds noise or, by construction, does not."""

import math

import pytest
import torch
from torch import Tensor

from d3hr import ImageData, load_images
from d3hr.diagnostics.interpolation import Interpolation, inexact_inversion, interpolation_test, spherical_middle
from d3hr.diagnostics.neighbours import Support
from d3hr.distillation.presets import distill_settings
from d3hr.prior.class_matching import match_classes
from d3hr.prior.conditions import Condition
from d3hr.prior.schedules.schedule import Point
from tests.diagnostics.test_gate import GaussianClasses


class LeftOut(GaussianClasses):
    """Its noise without a class is none at all, so that guidance multiplies what it predicts."""

    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        return guidance_scale * super().slope(latents, point, condition)


@pytest.fixture(scope="module")
def images() -> ImageData:
    return load_images("digits")


@pytest.fixture(scope="module")
def prior(images: ImageData) -> LeftOut:
    return LeftOut([torch.cat(list(batches)) for _, batches in images], images.class_names)


def interpolated(prior: LeftOut, images: ImageData, guidance: float) -> Interpolation | None:
    settings = distill_settings("gentle", steps=25, level=12, inversion_guidance=guidance)
    return interpolation_test(images, prior, match_classes(images.class_names, prior.class_names, of="digits"), settings)


def test_exact_inversion_finds_noise(prior: LeftOut, images: ImageData) -> None:
    """Without guidance what lies between is as good as noise that is drawn. Of grey digits two thirds of the values are copies, and some
    are always black: their noise is 0, and that of the others, a quarter, is of unit size."""
    found = interpolated(prior, images, 1.0)
    assert found is not None and found.images == 100
    assert found.spread == pytest.approx(0.5, abs=0.05)
    assert inexact_inversion(found).status == "ok", found


def test_noise_that_is_too_large_is_found(prior: LeftOut, images: ImageData) -> None:
    """Guidance of 4 adds noise four times: the images come back, by as large steps, but what lies between them is not a digit."""
    found = interpolated(prior, images, 4.0)
    assert found is not None and found.spread is not None and found.spread > 1.5
    verdict = inexact_inversion(found)
    assert verdict.status == "failure" and "--inversion-guidance 1" in verdict.text and "times as large as noise" in verdict.evidence


def test_an_inversion_without_end_is_a_failure(prior: LeftOut, images: ImageData) -> None:
    found = interpolated(prior, images, math.inf)
    assert found is not None and found.images is None
    verdict = inexact_inversion(found)
    assert verdict.status == "failure" and "NaN or infinity" in verdict.evidence


def test_nothing_is_said_where_nothing_is_inverted(prior: LeftOut, images: ImageData) -> None:
    matches = match_classes(images.class_names, prior.class_names, of="digits")
    assert interpolation_test(images, prior, matches, distill_settings("gentle", forward_process="forward_noise")) is None
    assert interpolation_test(images, prior, matches, distill_settings(candidates="real")) is None


def test_the_worst_figure_decides() -> None:
    noise = Support(precision=0.8, coverage=0.5)
    found = [
        inexact_inversion(Interpolation(Support(precision, None, None, coverage), noise, 1.0, 9)).status
        for precision, coverage in ((0.7, 0.42), (0.6, 0.5), (0.8, 0.2))
    ]
    assert found == ["ok", "warning", "failure"]
    assert inexact_inversion(Interpolation(Support(0.0, 0.0, 0.0, 0.0), Support(0.0, 0.0, 0.0, 0.0), 1.0, 9)).status == "unknown"


def test_the_middle_of_an_arc() -> None:
    """Between (3, 0) and (0, 1) it is half way round, at the mean norm 2; between a point and itself it is that point."""
    a, b = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(spherical_middle(a, b), torch.full((1, 2, 1, 1), 2 / math.sqrt(2)))
    torch.testing.assert_close(spherical_middle(a, a), a)
