from dataclasses import replace

import pytest
import torch

from d3hr.evaluation.students import new_student
from d3hr.planning.counting import prior_needs, student_needs
from d3hr.planning.known_shapes import SHAPES
from d3hr.planning.shapes import PriorShape
from d3hr.prior.networks import new_autoencoder, new_transformer
from tests.conftest import SMALL, untrained_prior


@pytest.mark.slow
def test_a_small_transformer() -> None:
    """Width d, n tokens, L blocks: a block takes 12 n d^2 + 2 n^2 d MACs for tokens, and 6 d^2 + d^2 + 256 d for its modulation and
    timestep; patches and output take n d (patch values in + out), the last modulation 2 d^2."""
    shape = PriorShape.of(untrained_prior(("ant", "bee")))
    config = shape.network
    d, blocks, patch = 32, 2, config["patch_size"]
    n = (config["sample_size"] // patch) ** 2
    values = config["in_channels"] * patch**2
    # The output's modulation reads the first block's timestep embedding once more.
    macs = blocks * (12 * n * d**2 + 2 * n**2 * d + 7 * d**2 + 256 * d) + n * d * 2 * values + 2 * d**2 + d**2 + 256 * d
    assert prior_needs(shape).network.flops == pytest.approx(2 * macs, rel=0.01)


@pytest.mark.slow
def test_dit_xl_2_takes_what_its_paper_says() -> None:
    """118.6 GMACs a call at 256 pixels, which the paper (arXiv 2212.09748) calls Gflops."""
    assert prior_needs(SHAPES["facebook/DiT-XL-2-256"]).network.flops == pytest.approx(2 * 118.6e9, rel=0.02)


@pytest.mark.slow
def test_weights_are_those_of_the_real_networks() -> None:
    prior = untrained_prior(("ant", "bee"))
    states = [*prior.network.state_dict().values(), *prior.vae.state_dict().values()]
    needs = prior_needs(PriorShape.of(prior))
    assert needs.weights == sum(value.numel() * value.element_size() for value in states)


@pytest.mark.slow
def test_half_precision_halves_the_bytes() -> None:
    full = PriorShape.of(untrained_prior(("ant", "bee")))
    half = replace(full, dtype=torch.bfloat16, autoencoder_dtype=torch.bfloat16)
    assert prior_needs(half).weights == prior_needs(full).weights / 2
    assert prior_needs(half).network.flops == prior_needs(full).network.flops


def test_a_student() -> None:
    """ConvNet-3 at 8 pixels: 9 (3 * 128 * 64 + 128^2 * 16 + 128^2 * 4) MACs and 128 * 5 for the classifier; two feature maps of the
    first layer, 128 * 64 * 4 bytes each, live at a time in a test."""
    needs = student_needs("convnet3", 5, 8)
    assert needs.test.flops == 2 * (9 * (3 * 128 * 64 + 128**2 * 16 + 128**2 * 4) + 128 * 5)
    assert needs.test.activations == pytest.approx(2 * 128 * 64 * 4, rel=0.05)
    assert 2.5 < needs.training.flops / needs.test.flops <= 3


def test_what_an_optimiser_holds_does_not_grow_with_the_batch() -> None:
    """Weights, gradients and momentum: three times the parameters in float32."""
    parameters = sum(value.numel() for value in new_student("convnet3", 5, 8).parameters())
    needs = student_needs("convnet3", 5, 8).training
    assert needs.fixed == pytest.approx(3 * 4 * parameters, rel=0.02)
    assert needs.memory(10) - needs.memory(9) == needs.activations
    assert needs.memory(0) == 0


def test_a_shape_builds_the_networks_it_was_taken_from() -> None:
    transformer, autoencoder = new_transformer(SMALL, (4, 4), 2), new_autoencoder(SMALL, 8)
    denoiser, copy = PriorShape.of(untrained_prior(("ant", "bee"))).parts("cpu")
    for ours, theirs in ((denoiser.network, transformer), (copy, autoencoder)):
        assert {name: value.shape for name, value in ours.state_dict().items()} == {
            name: value.shape for name, value in theirs.state_dict().items()
        }


def test_layers_can_be_changed() -> None:
    shape = SHAPES["facebook/DiT-XL-2-512"].with_network(num_layers=1)
    assert (shape.layers, shape.latent_shape, shape.dimensions, len(shape.class_names)) == (1, (4, 64, 64), 16384, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions", "image_size", "latent_shape"),
    [
        ("facebook/DiT-XL-2-256", 675 + 75, 256, (4, 32, 32)),  # diffusers repeats DiT's embedding of time and class in every block
        ("SiT-XL-2-256", 675 + 75, 256, (4, 32, 32)),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", 860, 512, (4, 64, 64)),
        ("stabilityai/stable-diffusion-2-1", 866, 768, (4, 96, 96)),
        ("stabilityai/stable-diffusion-xl-base-1.0", 2567, 1024, (4, 128, 128)),
        ("stabilityai/stable-diffusion-3-medium-diffusers", 2028, 1024, (16, 128, 128)),
        ("google/ddpm-cifar10-32", 35.7, 32, (3, 32, 32)),
    ],
)
def test_known_shapes_have_the_parameters_that_are_published(
    name: str, millions: float, image_size: int, latent_shape: tuple[int, int, int]
) -> None:
    shape = SHAPES[name]
    assert shape.parameters / 1e6 == pytest.approx(millions, rel=0.002)
    assert (shape.image_size, shape.latent_shape) == (image_size, latent_shape)


@pytest.mark.slow
def test_a_u_net_takes_what_is_published() -> None:
    """SDXL's 2.98 T and Stable Diffusion 1.5's 0.34 T MACs are of convolutions and linear layers; attention's products come on top."""
    flops = [prior_needs(SHAPES[f"{name}"]).network.flops for name in ("stable-diffusion-v1-5/stable-diffusion-v1-5",)]
    assert 2 * 0.339e12 < flops[0] < 1.25 * 2 * 0.339e12


@pytest.mark.slow
def test_mobilenetv2_takes_what_its_paper_says() -> None:
    """300 M MACs at 224 pixels (arXiv 1801.04381, table 4). A step takes three times as many, forwards, for the weights and for the inputs,
    but for the inputs of the first layer: also where a convolution has groups."""
    needs = student_needs("mobilenetv2", 1000, 224)
    assert needs.test.flops == pytest.approx(2 * 300e6, rel=0.01)
    assert 2.9 < needs.training.flops / needs.test.flops <= 3


def test_a_student_whose_last_map_is_one_pixel() -> None:
    """Batch norm refuses to train on one value a channel: ResNet-18 halves 8 pixels three times. MACs: 3x3 stem; four 3x3 convolutions a
    stage, the first of which widens in all but the first stage, with a 1x1 shortcut; classifier."""
    macs = 27 * 64 * 64 + 4 * 9 * 64**2 * 64 + 512 * 5
    macs += sum((9 * (c * c // 2 + 3 * c * c) + c * c // 2) * pixels for c, pixels in [(128, 16), (256, 4), (512, 1)])
    assert student_needs("resnet18", 5, 8).test.flops == 2 * macs
