import sys

import pytest
import torch

from d3hr.errors import SettingsError
from d3hr.evaluation.students import STUDENTS, Student, new_student

LARGE = ["resnet18", "resnet50", "efficientnet-b0", "swin-t"]
FAMILIES = ["convnet3", "mobilenetv2", "vit-t", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
"""One name of every family, and both kinds of ResNet blocks."""


def seeded(name: str, seed: int, side: int = 16) -> Student:
    torch.manual_seed(seed)
    return new_student(name, 5, side)


def noise(count: int, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(7)) * 2 - 1


@pytest.mark.parametrize("name", FAMILIES)
def test_one_step_changes_every_parameter(name: str) -> None:
    """No weight is left out of the graph. Biases of keys aside: they add the same to all logits of a query, which softmax does not see."""
    network = seeded(name, 0)
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    torch.nn.functional.cross_entropy(network(noise(6)), torch.arange(6) % 5).backward()
    torch.optim.SGD(network.parameters(), lr=10.0).step()
    same = [key for key, value in network.named_parameters() if torch.equal(value, before[key]) and not key.endswith("k_proj.bias")]
    assert same == []


@pytest.mark.parametrize("name", FAMILIES)
def test_in_evaluation_mode_an_image_is_alone(name: str) -> None:
    """Neither the batch nor chance has a say, and the classifier sees what ``embed`` returns."""
    network, images = seeded(name, 0).eval(), noise(5)
    with torch.no_grad():
        logits, features = network(images), network.embed(images)
        assert logits.shape == (5, 5)
        assert features.ndim == 2
        largest = float(logits.abs().max())
        torch.testing.assert_close(network(images[2:3]), logits[2:3], rtol=0, atol=1e-5 * largest)
        torch.testing.assert_close(network.classifier(features), logits, rtol=0, atol=1e-5 * largest)
        assert (logits.std(dim=0) > 1e-3 * largest).all(), "images are not told apart"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_seed_decides_the_weights(name: str) -> None:
    """Also where a part is built apart from the rest. A network takes the weights of another of its name."""
    first, again, other = (seeded(name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key, value in first.items() if value.is_floating_point() and value.ndim > 1 and value.any()]
    assert not any(torch.equal(first[key], other[key]) for key in drawn)
    network = seeded(name, 2)
    network.load_state_dict(first)
    with torch.no_grad():
        assert torch.equal(network.eval()(noise(2)), seeded(name, 0).eval()(noise(2)))


@pytest.mark.parametrize("name", FAMILIES[1:])
def test_images_of_odd_sides(name: str) -> None:
    for side in (9, 225):
        with torch.device("meta"):
            assert new_student(name, 7, side)(torch.empty(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet19", "convnet", "convnet0", "convnet10", "timm", "ResNet18"])
def test_unknown_students_are_refused(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        new_student(name, 10, 32)
    assert all(known in str(caught.value) for known in [*STUDENTS, "timm:NAME"])


@pytest.mark.parametrize(("name", "side", "least"), [("convnet3", 7, 8), ("convnet9", 511, 512), ("swin-t", 8, 9)])
def test_images_too_small_are_refused(name: str, side: int, least: int) -> None:
    with pytest.raises(SettingsError, match=f"at least {least} pixels"):
        new_student(name, 10, side)


def test_without_timm_its_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SettingsError, match="pip install timm"):
        new_student("timm:resnet10t", 10, 32)


def test_timm_builds_what_is_named() -> None:
    """The same number of weights as timm's own network of that name and classes, at a side of ours where it is made for one side."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    for name, side, settings in [("resnet10t", 32, {}), ("mobilenetv3_small_050", 32, {}), ("vit_tiny_patch16_224", 64, {"img_size": 64})]:
        network, theirs = new_student(f"timm:{name}", 5, side), timm.create_model(name, num_classes=5, **settings)
        assert sum(value.numel() for value in network.parameters()) == sum(value.numel() for value in theirs.parameters())
        assert network(noise(2, side)).shape == (2, 5)
    with pytest.raises(SettingsError, match="no network 'resnet10x'"):
        new_student("timm:resnet10x", 5, 32)
