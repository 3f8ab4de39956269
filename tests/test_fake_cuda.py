"""Every stage runs on a GPU that is not there (tests/fake_cuda.py): no operation between devices, no needless wait, and results where and
in the precision that they are said to be.

The device is ``cuda:1``, so that one that loses its number is another.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from d3hr import ClassGaussian, Prior, denoise, invert
from d3hr.data.dataset import ImageData
from d3hr.distillation.chunks import ClassChunks
from d3hr.distillation.levels import LatentSample
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.pool import PoolSearch, class_variances
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import Solver
from d3hr.distillation.solvers import InexactInversion
from d3hr.distillation.tasks import GenerateTask, ImageGenerator, StatisticsEstimator
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import hard_targets, online_targets, stored_targets, train_student
from d3hr.prior.autoencoder import train_autoencoder
from d3hr.prior.fit_context import FitContext
from d3hr.prior.model import PRECISIONS
from d3hr.prior.networks import SCHEDULER_CONFIGS, new_autoencoder
from d3hr.prior.presets import PRESETS, TrainingSettings
from d3hr.prior.schedules.flow_matching import FlowMatching
from d3hr.prior.schedules.reading import read_schedule
from d3hr.prior.schedules.schedule import TrainableSchedule
from d3hr.prior.settings import Objective
from d3hr.prior.transformer import train_transformer
from d3hr.progress import SILENT
from tests.conftest import ONE_PROCESS, SMALL, untrained_prior
from tests.fake_cuda import FakeCuda, fake_cuda, on_device
from tests.prior.small_priors import SMALL_PRIORS, SmallPrior

DEVICE = torch.device("cuda:1")
LEVEL, STEPS, TRAINED = 3, 12, 2
TRAINING = TrainingSettings(steps=TRAINED, batch_size=4, learning_rate=1e-3)

each_precision = pytest.mark.parametrize("precision", list(PRECISIONS))


def read(gpu: FakeCuda) -> dict[str, int]:
    """Return how often something was read from the device."""
    return {method: count for method, count in gpu.reads.items() if method != "upload"}


def test_the_device_that_is_not_there_is_strict() -> None:
    with fake_cuda() as gpu:
        x = torch.zeros(2, device=DEVICE)
        with pytest.raises(RuntimeError, match="device"):
            x + torch.zeros(2)
        with pytest.raises(RuntimeError, match="device"):
            x + torch.zeros(2, device="cuda:0")
        with pytest.raises(RuntimeError, match="draws numbers on cuda"):
            torch.randn(2, generator=torch.Generator(), device=DEVICE)
        assert not gpu.reads
        assert bool(x.sum() > 0) and not float(x.sum()) and x.cpu().device.type == "cpu"
        assert gpu.reads == {"__bool__": 1, "__float__": 1, "copy": 1}
        (2 * x.requires_grad_()).sum().backward()
        assert x.grad is not None and x.grad.device == DEVICE
    assert torch.zeros(2).tolist() == [0, 0]


def inverted(prior: Prior, latents: Tensor, solver: Solver, guidance: float, gpu: FakeCuda) -> Tensor:
    """Invert latents, and see what was read on the way: whether they are finite, at each level, and the residuals of a fixed point."""
    gpu.reads.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InexactInversion)
        result = invert(prior, latents, prior.denoiser.example, level=LEVEL, steps=STEPS, guidance_scale=guidance, solver=solver)
    assert read(gpu) == {"__bool__": LEVEL, **({"__float__": 3 * LEVEL} if solver == "fixed_point" else {})}
    assert gpu.reads["upload"] <= 2 * len(prior.denoiser.example.inputs)  # of what the prior is given of the class, and of no class
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("small", "precision"),
    [(small, precision) for small in SMALL_PRIORS for precision in (PRECISIONS if small.name == "dit" else ["bf16"])],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_prior_of_each_family_there_and_back(small: SmallPrior, precision: str, tmp_path: Path) -> None:
    """Encoded, inverted by every solver that its schedule has, denoised and decoded."""
    prior, dtype = small.write(tmp_path), PRECISIONS[precision]
    guidance = 2.0 if small.guided else 1.0
    solvers: list[Solver] = ["ddim", "fixed_point", *(["midpoint"] if isinstance(prior.schedule, FlowMatching) else [])]  # type: ignore[list-item]
    with fake_cuda() as gpu:
        on_device(prior, DEVICE, dtype)
        assert (prior.device, prior.precision) == (DEVICE, precision)
        latents = prior.encode(torch.rand(2, 3, prior.image_size, prior.image_size))
        for z in [latents, *(inverted(prior, latents, solver, guidance, gpu) for solver in solvers)]:
            assert (z.device, z.dtype, tuple(z.shape)) == (DEVICE, torch.float32, (2, *prior.latent_shape))
        gpu.reads.clear()
        clean = denoise(prior, latents, prior.denoiser.example, level=LEVEL, steps=STEPS, guidance_scale=guidance)
        assert read(gpu) == {"__bool__": LEVEL}
        assert gpu.reads["upload"] <= 2 * len(prior.denoiser.example.inputs)
        images = prior.decode(clean)
        assert (images.device, images.dtype) == (DEVICE, torch.float32)


@pytest.mark.slow
@each_precision
def test_statistics_of_images(precision: str, digits: ImageData) -> None:
    """From images on the CPU to a Gaussian on the CPU, with one copy for each batch."""
    prior, settings = untrained_prior(digits.class_names), distill_settings("fast", level=LEVEL, steps=STEPS, batch_size=8)
    conditions = prior.conditions(digits.class_names)
    with fake_cuda() as gpu:
        on_device(prior, DEVICE, PRECISIONS[precision])
        estimator = StatisticsEstimator(digits.only(dict.fromkeys(digits.class_names, range(16)), "16"), prior, settings, conditions)
        measured = estimator.open()(ClassChunks({"3": estimator.division("3")})[0])
        assert gpu.reads["copy"] == 2
        gaussian = measured.mixture.modes[0]
        assert gaussian.count == 16
        assert {(value.device.type, value.dtype) for value in (gaussian.mean, gaussian.std)} == {("cpu", torch.float64)}


def test_a_search_on_a_device() -> None:
    settings = distill_settings(ipc=3, num_candidates=500)
    gaussian = ClassGaussian.empty(64).update(torch.randn(8, 64))
    variances = torch.stack([class_variances(name, gaussian, settings) for name in "ab"]).T
    with fake_cuda() as gpu:
        best = PoolSearch(variances, settings, device="cuda:1").search(range(1))
        assert {value.device.type for value in best} == {"cpu"}
        assert read(gpu) == {"copy": 2}


@pytest.mark.slow
@each_precision
def test_images_of_a_class(precision: str) -> None:
    prior, settings = untrained_prior(("ant", "bee")), distill_settings("gentle", ipc=4, level=LEVEL, steps=STEPS, batch_size=2)
    gaussian = ClassGaussian.empty(torch.Size(prior.latent_shape).numel()).update(torch.randn(8, *prior.latent_shape).flatten(1))
    conditions = prior.conditions(["ant", "bee"])
    with fake_cuda() as gpu:
        on_device(prior, DEVICE, PRECISIONS[precision])
        images = ImageGenerator(prior, settings, conditions).open()(GenerateTask("bee", ClassMixture((gaussian,)), {}))
        assert (images.device.type, images.dtype, tuple(images.shape)) == ("cpu", torch.float32, (4, 3, 8, 8))
        assert gpu.reads["copy"] == 2  # of one batch each


@pytest.mark.slow
def test_normality_by_level(digits: ImageData) -> None:
    prior = untrained_prior(digits.class_names)
    matches = prior.denoiser.match(digits.class_names, of="digits")
    with fake_cuda():
        on_device(prior, DEVICE, torch.float32)
        sample = LatentSample.choose(digits, prior, matches)
        assert sample is not None
        levels = list(sample.latents_by_level(matches[0], prior, distill_settings("paper", level=LEVEL, steps=STEPS), 2))
        assert [latents.device.type for latents in levels] == ["cpu"] * 3


def protocol(labels: str = "hard", **changes: Any) -> Protocol:
    """A protocol of two steps of four images, with all that can be done to them on a device."""
    soft = {"labels": labels, "temperature": 4.0} if labels != "hard" else {}
    return protocol_named("hard").model_copy(update={"steps": TRAINED, "batch_size": 4, "flip": True, "mix": "cutmix", **soft, **changes})


def train(network: nn.Module, settings: Protocol, targets: Any, gpu: FakeCuda) -> None:
    """Train a student, which may read nothing but its losses at points of the curve, of which a short training has one at each step."""
    pixels, dtypes = torch.zeros(8, 3, 16, 16, dtype=torch.uint8), set()
    network.register_forward_hook(lambda module, images, logits: dtypes.add(logits.dtype))
    gpu.reads.clear()
    train_student(network, lambda at: pixels[at], 8, protocol=settings, targets=targets, image_size=16, seed=0, title="student")
    assert read(gpu) == {"tolist": TRAINED}
    assert dtypes == {PRECISIONS[settings.precision]}
    assert {parameter.device for parameter in network.parameters()} == {DEVICE}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"mix": "mixup"}, {"mix": "none"}, {"shift": 0.0, "crop_scale": (0.5, 1.0)}], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_of_a_student_with_hard_labels(changes: dict[str, Any], precision: str) -> None:
    network = new_student("convnet3", 3, 16)
    with fake_cuda() as gpu:
        labels = (torch.arange(8) % 3).to(DEVICE)
        train(network.to(DEVICE), protocol(precision=precision, **changes), hard_targets(labels, 3, 0.1), gpu)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("labels", ["online", "stored"])
def test_steps_of_a_student_with_a_teacher(labels: str, precision: str) -> None:
    student, network = new_student("convnet3", 3, 16), new_student("resnet18", 3, 16).eval().requires_grad_(False)
    with fake_cuda() as gpu:
        teacher = Teacher(network.to(DEVICE), "resnet18", ("a", "b", "c"), 16, {}, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
        settings = protocol(labels, precision=precision)
        if labels == "online":
            targets = online_targets(lambda images: teacher.logits(images, "cab"), settings.temperature)
        else:
            targets = stored_targets(torch.zeros(8, 3, dtype=torch.float16).to(DEVICE), settings.temperature)
        train(student.to(DEVICE), settings, targets, gpu)
        assert teacher.embed(torch.rand(2, 3, 20, 20, device=DEVICE)).device == DEVICE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [("resnet18", "fp32"), ("resnet18", "bf16"), ("vit-t", "bf16"), ("swin-t", "bf16")])
def test_steps_of_a_teacher(name: str, precision: str) -> None:
    network = new_student(name, 3, 16)
    settings = protocol_named("teacher").model_copy(update={"epochs": None, "steps": TRAINED, "batch_size": 4, "precision": precision})
    with fake_cuda() as gpu:
        train(network.to(DEVICE), settings, hard_targets((torch.arange(8) % 3).to(DEVICE), 3), gpu)


def context(precision: str, folder: Path) -> FitContext:
    """A fit on a device; as the second of two processes would, it saves nothing."""
    process = SimpleNamespace(**{**vars(ONE_PROCESS), "device": DEVICE, "is_main_process": False})
    return FitContext(0, precision == "bf16", process, folder, SILENT)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("objective", list(SCHEDULER_CONFIGS))
def test_steps_of_a_transformer(objective: Objective, precision: str, tmp_path: Path) -> None:
    prior = untrained_prior(("ant", "bee"))
    latents: Any = SimpleNamespace(gather=lambda at: torch.zeros(len(at), *prior.latent_shape))
    conditions = list(prior.conditions(["ant", "bee"]).values())
    schedule = read_schedule(SCHEDULER_CONFIGS[objective])
    assert isinstance(schedule, TrainableSchedule)
    prior.network.requires_grad_(True)
    with fake_cuda() as gpu:
        train_transformer(prior.denoiser, conditions, latents, [5, 3], context(precision, tmp_path), schedule=schedule, settings=TRAINING)
        assert read(gpu) == {"tolist": TRAINED}
        assert (prior.device, prior.precision) == (DEVICE, "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["AutoencoderKL", "AutoencoderDC"])
def test_steps_of_an_autoencoder(kind: str, precision: str, tmp_path: Path, digits: ImageData) -> None:
    preset = SMALL if kind == "AutoencoderKL" else PRESETS["compact"].model_copy(update={"autoencoder_widths": (8, 8), "latent_size": 4})
    vae = new_autoencoder(preset, 8)
    with fake_cuda() as gpu:
        train_autoencoder(vae, digits, context(precision, tmp_path), settings=TRAINING, kl_weight=1e-6)
        assert read(gpu) == {"tolist": TRAINED}
        assert {parameter.device for parameter in vae.parameters()} == {DEVICE}
