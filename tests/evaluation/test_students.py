import pytest
import torch

from d3hr.errors import SettingsError
from d3hr.evaluation.students import new_student


def test_convnet3_has_the_published_size() -> None:
    """At 32 px and 10 classes: convolutions 3*128*9+128 and 2 * (128*128*9+128), norms 3 * 256, linear 2048*10+10: 320,010 (0.32 M)."""
    network = new_student("convnet3", 10, 32)
    expected = 3 * 128 * 9 + 128 + 2 * (128 * 128 * 9 + 128) + 3 * 256 + 128 * 16 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected == 320_010
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_batch_in_parts_is_the_same_batch() -> None:
    """Five images of 128 pixels, of which a CPU takes two at a time: outputs and gradients are those of the whole at once, to rounding."""
    torch.manual_seed(0)
    network, images = new_student("convnet1", 2, 128), torch.randn(5, 3, 128, 128)
    whole = network.classifier(network.features(images).flatten(1))
    expected = torch.autograd.grad(whole.square().sum(), list(network.parameters()))
    found = torch.autograd.grad(network(images).square().sum(), list(network.parameters()))
    torch.testing.assert_close(network(images), whole)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * largest)


def test_resnet18_has_the_published_size_and_a_stem_for_its_images() -> None:
    """The 32-pixel form has 11,173,962 parameters for 10 classes, the ImageNet form 11,689,512 for 1000.

    Three halvings after a stem that keeps 64 pixels leave 8; after the standard stem, which quarters, 96 pixels leave 3.
    """
    for classes, side, parameters, last in [(10, 32, 11_173_962, 4), (10, 64, 11_173_962, 8), (1000, 96, 11_689_512, 3)]:
        network = new_student("resnet18", classes, side)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
        images = torch.rand(2, 3, side, side) * 2 - 1
        with torch.no_grad():
            assert network(images).shape == (2, classes)
            assert network.network(images).last_hidden_state.shape == (2, 512, last, last)


def test_a_seed_decides_the_weights_of_resnet18() -> None:
    """He initialisation, fan out: the 3x3 stem of 64 channels has variance 2 / (9 * 64)."""
    stems = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        stems.append(next(new_student("resnet18", 10, 32).parameters()))
    assert torch.equal(stems[0], stems[1])
    assert not torch.equal(stems[0], stems[2])
    assert stems[0].var().item() == pytest.approx(2 / (9 * 64), rel=0.15)


def test_norm_is_per_image_and_channel() -> None:
    """Instance norm: scaling one image's contrast changes nothing but for epsilon, whatever stands beside it in the batch."""
    torch.manual_seed(0)
    network = new_student("convnet1", 3, 8)
    network.features[0].bias.data.zero_()
    images = torch.randn(2, 3, 8, 8)
    alone, together = network(10 * images[:1]), network(images)
    torch.testing.assert_close(alone[0], together[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["resnet19", "convnet", "convnet0"])
def test_unknown_students_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="convnet3"):
        new_student(name, 10, 32)


def test_images_too_small_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 8 pixels"):
        new_student("convnet3", 10, 4)
