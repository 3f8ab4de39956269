import math
from typing import Any

import pytest
import torch
from torch import nn

from d3hr.evaluation.networks.cifar_resnet import BasicBlock
from d3hr.evaluation.students import new_student


def on_meta(name: str, classes: int, side: int) -> Any:
    with torch.device("meta"):
        return new_student(name, classes, side)


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(side: int, inputs: int, outputs: int, groups: int = 1) -> int:
    """Weights of a convolution without bias and of the batch norm behind it."""
    return side**2 * inputs * outputs // groups + 2 * outputs


def test_convnet3_has_the_published_size() -> None:
    """At 32 px and 10 classes: convolutions 3*128*9+128 and 2 * (128*128*9+128), norms 3 * 256, linear 2048*10+10: 320,010 (0.32 M)."""
    network = new_student("convnet3", 10, 32)
    expected = 3 * 128 * 9 + 128 + 2 * (128 * 128 * 9 + 128) + 3 * 256 + 128 * 16 * 10 + 10
    assert parameters(network) == expected == 320_010
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_batch_in_parts_is_the_same_batch() -> None:
    """Five images of 128 pixels, of which a CPU takes two at a time: outputs and gradients are those of the whole at once, to rounding."""
    torch.manual_seed(0)
    network: Any = new_student("convnet1", 2, 128)
    images = torch.randn(5, 3, 128, 128)
    whole = network.classifier(network.features(images).flatten(1))
    expected = torch.autograd.grad(whole.square().sum(), list(network.parameters()))
    found = torch.autograd.grad(network(images).square().sum(), list(network.parameters()))
    torch.testing.assert_close(network(images), whole)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6 * largest)


def test_norm_is_per_image_and_channel() -> None:
    """Instance norm: scaling one image's contrast changes nothing but for epsilon, whatever stands beside it in the batch."""
    torch.manual_seed(0)
    network: Any = new_student("convnet1", 3, 8)
    network.features[0].bias.data.zero_()
    images = torch.randn(2, 3, 8, 8)
    alone, together = network(10 * images[:1]), network(images)
    torch.testing.assert_close(alone[0], together[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "depths", "bottleneck", "classes", "side", "published"),
    [
        ("resnet18", (2, 2, 2, 2), False, 10, 32, 11_173_962),
        ("resnet18", (2, 2, 2, 2), False, 1000, 224, 11_689_512),
        ("resnet50", (3, 4, 6, 3), True, 10, 32, 23_520_842),
        ("resnet50", (3, 4, 6, 3), True, 1000, 224, 25_557_032),
        ("resnet101", (3, 4, 23, 3), True, 1000, 224, 44_549_160),
    ],
)
def test_resnets_have_the_published_size(
    name: str, depths: tuple[int, ...], bottleneck: bool, classes: int, side: int, published: int
) -> None:
    """A stem of 3x3 (small) or 7x7; blocks of two 3x3 convolutions, or of 1x1, 3x3 and 1x1 with four times the width behind; a 1x1
    convolution in the shortcut where the width changes; one linear layer."""
    expected, width = convolution(3 if side <= 64 else 7, 3, 64), 64
    for stage, depth in enumerate(depths):
        inner = 64 * 2**stage
        outer = 4 * inner if bottleneck else inner
        for _ in range(depth):
            if bottleneck:
                expected += convolution(1, width, inner) + convolution(3, inner, inner) + convolution(1, inner, outer)
            else:
                expected += convolution(3, width, inner) + convolution(3, inner, outer)
            expected += convolution(1, width, outer) if width != outer else 0
            width = outer
    expected += width * classes + classes
    assert parameters(on_meta(name, classes, side)) == expected == published


def test_a_bottleneck_halves_in_its_3x3_convolution() -> None:
    """As torchvision's do; the first block of the second stage is the first that halves."""
    block = on_meta("resnet50", 10, 32).network.encoder.stages[1].layers[0].layer
    assert [layer.convolution.stride[0] for layer in block] == [1, 2, 1]


def test_a_resnet_starts_by_he() -> None:
    """Fan out: the 3x3 stem of 64 channels, which we put in, has variance 2 / (9 * 64)."""
    torch.manual_seed(0)
    assert next(new_student("resnet18", 10, 32).parameters()).var().item() == pytest.approx(2 / (9 * 64), rel=0.15)


@pytest.mark.parametrize(
    ("name", "blocks", "published"), [("resnet20", 3, 0.27), ("resnet32", 5, 0.46), ("resnet44", 7, 0.66), ("resnet56", 9, 0.85)]
)
def test_the_resnets_for_cifar_have_the_published_size(name: str, blocks: int, published: float) -> None:
    """Table 6 of the paper, in millions: a stem of 16, stages of 16, 32 and 64 whose shortcuts have no weights, and a linear layer."""
    expected, inputs = convolution(3, 3, 16), 16
    for width in (16, 32, 64):
        expected += convolution(3, inputs, width) + convolution(3, width, width) + (blocks - 1) * 2 * convolution(3, width, width)
        inputs = width
    expected += 64 * 10 + 10
    assert parameters(on_meta(name, 10, 32)) == expected
    assert round(expected / 1e6, 2) == published


def test_a_shortcut_for_cifar_takes_every_second_pixel_and_pads_channels_on_both_sides() -> None:
    """With convolutions of zero a block is the shortcut alone: 2 channels become one of zeros, the two at half the side, and zeros."""
    block = BasicBlock(2, 4).eval()
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
    maps = torch.arange(50.0).view(1, 2, 5, 5)
    zeros = torch.zeros(3, 3)
    expected = torch.tensor([[0.0, 2, 4], [10, 12, 14], [20, 22, 24]])
    assert torch.equal(block(maps)[0], torch.stack([zeros, expected, expected + 25, zeros]))
    same = BasicBlock(4, 4).eval()
    nn.init.zeros_(same.conv2.weight)
    assert torch.equal(same(block(maps)), block(maps))


def test_a_resnet_for_cifar_halves_twice() -> None:
    """32 pixels end in maps of 8, the first block of the second and of the third stage halves; odd sides are rounded up: 7, 4, 2."""
    network: Any = new_student("resnet20", 10, 32).eval()
    for side, sides in ((32, [32, 16, 8]), (7, [7, 4, 2])):
        maps, found = network.conv1(torch.zeros(1, 3, side, side)), []
        for stage in (network.layer1, network.layer2, network.layer3):
            maps = stage(maps)
            found.append(maps.shape[-1])
        assert found == sides
    assert network.embed(torch.zeros(2, 3, 32, 32)).shape == (2, 64)


def test_mobilenetv2_has_the_published_size() -> None:
    """Table 2 of the paper: a stem of 32 channels; blocks of expansion (but the first), 3x3 depthwise and projection; 1280 features."""
    expected, width = convolution(3, 3, 32) + convolution(3, 32, 32, groups=32) + convolution(1, 32, 16), 16
    for channels, repeats in [(24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)]:
        for _ in range(repeats):
            inner = 6 * width
            expected += convolution(1, width, inner) + convolution(3, inner, inner, groups=inner) + convolution(1, inner, channels)
            width = channels
    expected += convolution(1, 320, 1280) + 1280 * 1000 + 1000
    assert parameters(on_meta("mobilenetv2", 1000, 224)) == parameters(on_meta("mobilenetv2", 1000, 32)) == expected == 3_504_872


def test_efficientnet_b0_has_the_published_size() -> None:
    """Table 1 of the paper: a stem of 32 channels; blocks of expansion (but in the first stage), k x k depthwise, squeeze and excitation by
    a quarter of the block's input, and projection; 1280 features."""
    expected, width = convolution(3, 3, 32), 32
    stages = [(1, 3, 16, 1), (6, 3, 24, 2), (6, 5, 40, 2), (6, 3, 80, 3), (6, 5, 112, 3), (6, 5, 192, 4), (6, 3, 320, 1)]
    for expansion, side, channels, repeats in stages:
        for _ in range(repeats):
            inner, squeezed = expansion * width, width // 4
            expected += convolution(1, width, inner) if expansion > 1 else 0
            expected += convolution(side, inner, inner, groups=inner) + convolution(1, inner, channels)
            expected += inner * squeezed + squeezed + squeezed * inner + inner
            width = channels
    expected += convolution(1, 320, 1280) + 1280 * 1000 + 1000
    assert parameters(on_meta("efficientnet-b0", 1000, 224)) == parameters(on_meta("efficientnet-b0", 1000, 32)) == expected == 5_288_548


def test_vit_t_has_the_published_size() -> None:
    """Patches of 16 pixels, a class token and 196 + 1 positions; 12 layers of two norms, four square maps and two of four times the width;
    a norm; one linear layer. No pooler stands between."""
    d, patches = 192, 14**2
    layer = 2 * 2 * d + 4 * (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d)
    expected = 3 * 16**2 * d + d + d + (patches + 1) * d + 12 * layer + 2 * d + d * 1000 + 1000
    assert parameters(on_meta("vit-t", 1000, 224)) == expected == 5_717_416


@pytest.mark.parametrize(("side", "patch", "windows"), [(224, 4, (7, 7, 7, 7)), (32, 2, (4, 4, 4, 2)), (64, 4, (4, 4, 4, 2))])
def test_swin_t_has_the_published_size(side: int, patch: int, windows: tuple[int, ...]) -> None:
    """Patches and their norm; layers of two norms, four square maps, two of four times the width, and (2 w - 1)^2 positions a head; a norm
    and a map from four to two times the width between stages; a norm; one linear layer: 28,288,354 at 224 pixels."""
    expected = 3 * patch**2 * 96 + 96 + 2 * 96
    for stage, (depth, heads, window) in enumerate(zip((2, 2, 6, 2), (3, 6, 12, 24), windows, strict=True)):
        d = 96 * 2**stage
        expected += depth * (2 * 2 * d + 4 * (d * d + d) + 8 * d * d + 5 * d + (2 * window - 1) ** 2 * heads)
        expected += 2 * 4 * d + 4 * d * 2 * d if stage < 3 else 0
    expected += 2 * 768 + 768 * 1000 + 1000
    assert parameters(on_meta("swin-t", 1000, side)) == expected
    assert side != 224 or expected == 28_288_354


def test_windows_of_swin_t() -> None:
    """Windows of 8 where they divide the maps of a multiple of 128 pixels; where a map is smaller than a window, it is the window."""
    for side, windows in [(9, (4, 4, 3, 2)), (96, (7, 7, 6, 3)), (128, (8, 8, 8, 4)), (256, (8, 8, 8, 8))]:
        stages = on_meta("swin-t", 5, side).network.encoder.layers
        assert tuple(stage.blocks[0].window_size for stage in stages) == windows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (("resnet18", "resnet50"), {32: 4, 64: 8, 96: 3, 224: 7}),
        (("mobilenetv2", "efficientnet-b0"), {8: 1, 33: 5, 64: 8, 97: 4}),
    ],
)
def test_the_last_map_of_convolutions(names: tuple[str, ...], sides: dict[int, int]) -> None:
    """Three halvings up to 64 pixels, five above, each of which rounds up: 97 pixels become 49, 25, 13, 7 and 4."""
    for name in names:
        for side, last in sides.items():
            images = torch.empty(2, 3, side, side, device="meta")
            assert on_meta(name, 5, side).network(images).last_hidden_state.shape[2:] == (last, last)


@pytest.mark.parametrize(("side", "tokens"), [(4, 16), (8, 64), (28, 49), (32, 64), (64, 64), (65, 25), (224, 196)])
def test_the_tokens_of_vit_t(side: int, tokens: int) -> None:
    """An eighth of a side up to 64 pixels, rounded up: 28 pixels are 7 patches of 4. Above, 16 pixels: 65 are 5 patches, some padded."""
    images = torch.empty(1, 3, side, side, device="meta")
    network = on_meta("vit-t", 5, side)
    assert network.network.embeddings.patch_embeddings.num_patches == tokens
    assert network(images).shape == (1, 5)


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet-b0"])
def test_batch_norms_remember_more_than_the_last_batch(name: str) -> None:
    """Momentum 0.1: after one batch the first running mean, 0 at first, is a tenth of the batch's."""
    torch.manual_seed(0)
    network, images = new_student(name, 5, 16), torch.rand(8, 3, 16, 16)
    norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    network(images)
    torch.testing.assert_close(norm.running_mean, 0.1 * seen[0].mean(dim=(0, 2, 3)))
    assert {module.momentum for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet-b0"])
def test_depthwise_networks_start_by_he(name: str) -> None:
    """Fan out k^2 outputs / groups: a depthwise filter of k x k has the standard deviation sqrt(2) / k, and scales of norms are one."""
    torch.manual_seed(0)
    network = new_student(name, 5, 16)
    depthwise = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d) and module.groups > 500]
    assert depthwise
    for module in depthwise:
        assert module.weight.std().item() == pytest.approx(math.sqrt(2) / module.kernel_size[0], rel=0.06)
    assert all((module.weight == 1).all() for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
