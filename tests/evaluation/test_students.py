import pytest
import torch

from d3hr.errors import SettingsError
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.students import new_student


def test_convnet3_has_the_published_size() -> None:
    """At 32 px and 10 classes: convolutions 3*128*9+128 and 2 * (128*128*9+128), norms 3 * 256, linear 2048*10+10: 320,010 (0.32 M)."""
    network = new_student("convnet3", 10, 32)
    expected = 3 * 128 * 9 + 128 + 2 * (128 * 128 * 9 + 128) + 3 * 256 + 128 * 16 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected == 320_010
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_norm_is_per_image_and_channel() -> None:
    """Instance norm: scaling one image's contrast changes nothing but for epsilon, whatever stands beside it in the batch."""
    torch.manual_seed(0)
    network = new_student("convnet1", 3, 8)
    network.features[0].bias.data.zero_()
    images = torch.randn(2, 3, 8, 8)
    alone, together = network(10 * images[:1]), network(images)
    torch.testing.assert_close(alone[0], together[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "convnet", "convnet0"])
def test_unknown_students_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="convnet3"):
        new_student(name, 10, 32)


def test_images_too_small_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least 8 pixels"):
        new_student("convnet3", 10, 4)


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(SettingsError, match="hard, quick"):
        protocol_named("secret")
