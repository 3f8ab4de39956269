import pytest
import torch

from d3hr.selection.spaces import principal_components, small_pixels


@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (12, 12)])
def test_principal_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.arange(1, shape[1] + 1) + 5
    centred = features.double() - features.double().mean(dim=0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    scores = principal_components(features, 5)
    torch.testing.assert_close(scores.abs(), (u * s)[:, :5].abs(), rtol=1e-7, atol=1e-6)
    assert (scores.amax(dim=0) > -scores.amin(dim=0)).all()


@pytest.mark.parametrize("wide", [False, True])
def test_distances_are_kept_by_all_components(wide: bool) -> None:
    """Rows in a plane of a space with more dimensions than there are rows, or fewer: two components say all, and the others are zero."""
    generator = torch.Generator().manual_seed(1)
    plane = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    features = plane @ torch.randn(2, 50 if wide else 9, generator=generator, dtype=torch.float64)
    scores = principal_components(features, 30)
    assert scores.shape == (20, 20 if wide else 9)
    torch.testing.assert_close(torch.cdist(scores[:, :2], scores[:, :2]), torch.cdist(features, features))
    assert float(scores[:, 2:].abs().max()) < 1e-6 * float(scores.abs().max())


def test_signs_do_not_depend_on_the_rotation_of_the_features() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(30, 6, generator=generator, dtype=torch.float64) * torch.arange(1, 7)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(principal_components(features, 6), principal_components(features @ rotation, 6))


def test_small_pixels_are_averages() -> None:
    """An image that is black on the left and white on the right, and one of a single grey, at two pixels a side."""
    halves = torch.cat([-torch.ones(3, 16, 8), torch.ones(3, 16, 8)], dim=2)
    pixels = small_pixels(torch.stack([halves, torch.full((3, 16, 16), 0.25)]), 2)
    assert pixels.shape == (2, 12)
    left, right = pixels[0].reshape(3, 2, 2).unbind(dim=2)
    torch.testing.assert_close(left, -right)
    assert (right > 0.5).all()
    torch.testing.assert_close(pixels[1], torch.full((12,), 0.25))
