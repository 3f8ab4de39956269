"""The round trip where its error is known."""

import dataclasses

import pytest

from d3hr import ImageData, Prior
from d3hr.diagnostics.roundtrip import round_trip
from d3hr.distillation.presets import distill_settings
from d3hr.prior.class_matching import match_classes


@pytest.mark.slow
def test_exact_inversion_leaves_the_autoencoders_error_alone(digits: ImageData, digits_prior: Prior) -> None:
    """With the fixed-point solver and the same guidance both ways, denoising undoes inversion; one image of each of 8 classes is 8 * 8."""
    matches = match_classes(digits.class_names, digits_prior.class_names, of="digits")
    settings = distill_settings("gentle", steps=5, level=2, solver="fixed_point")
    found = round_trip(digits, digits_prior, matches, settings)
    assert found.images == 64
    assert found.psnr_db == pytest.approx(found.autoencoder_psnr_db, abs=1e-3)
    assert found.seconds_per_image is not None and found.seconds_per_image > 0
    inexact = round_trip(digits, digits_prior, matches[:1], settings.model_copy(update={"denoising_guidance": 4.0, "solver": "ddim"}))
    assert inexact.images == 8
    assert dataclasses.asdict(inexact)["psnr_db"] != pytest.approx(inexact.autoencoder_psnr_db, abs=1e-3)
