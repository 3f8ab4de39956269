from pathlib import Path

import pytest
import torch

from d3hr import ImageData, Prior, denoise, load_images, prior_only, random_real
from d3hr.data.codec import to_uint8
from d3hr.errors import DataError, SettingsError
from tests.conftest import MakeFolder


def test_random_real_images_are_real_and_different(digits: ImageData, tmp_path: Path) -> None:
    """Every image of the set is one of its class's images, none twice; another seed draws others."""
    made = random_real(digits, tmp_path / "set", ipc=5, image_size=8)
    for name in digits.class_names:
        real = [image.numpy().tobytes() for batch in digits.batches(name) for image in to_uint8(batch)]
        drawn = [image.numpy().tobytes() for image in made.of_class(name)]
        assert set(drawn) <= set(real)
        assert len(set(drawn)) == 5
    assert not torch.equal(made.images, random_real(digits, tmp_path / "other", ipc=5, image_size=8, seed=1).images)


def test_a_larger_draw_contains_the_smaller(digits: ImageData, tmp_path: Path) -> None:
    one, three = (random_real(digits, tmp_path / str(ipc), ipc=ipc, image_size=8) for ipc in (1, 3))
    assert torch.equal(one.images, three.images[::3])


def test_prior_only_denoises_pure_noise_from_the_top(digits_prior: Prior, digits: ImageData, tmp_path: Path) -> None:
    """The images are what denoising N(0, I) from level steps - 1 gives: the same noise, redrawn by hand."""
    from d3hr.seeds import generator_for

    made = prior_only(digits_prior, digits.class_names, tmp_path / "set", ipc=2, steps=5, guidance_scale=1.5, seed=7)
    noise = torch.randn(2, 4, 4, 4, generator=generator_for(7, "prior_only", "3"))
    clean = denoise(digits_prior, noise, torch.tensor([3, 3]), level=4, steps=5, guidance_scale=1.5)
    assert (made.of_class("3").int() - to_uint8(digits_prior.decode(clean)).int()).abs().max() <= 1


def test_more_images_than_there_are(image_folder: MakeFolder, digits_prior: Prior, tmp_path: Path) -> None:
    images = load_images(image_folder({"a": 5, "b": 2}))
    with pytest.raises(DataError, match=r"b \(2\)"):
        random_real(images, tmp_path / "set", ipc=3, image_size=8)
    with pytest.raises(SettingsError, match="--ipc"):
        random_real(images, tmp_path / "set", ipc=0, image_size=8)
    with pytest.raises(SettingsError, match="--ipc"):
        prior_only(digits_prior, ("1",), tmp_path / "set", ipc=0)
    assert not list(tmp_path.glob("set*"))
