"""Does a device compute what the CPU computes? Every stage on small shapes, in float32 and bfloat16, against the CPU in float32.

Legend: N images, H = W image side, D = C*h*w dimensions of a latent.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from benchmarks.gpu_parts.worker import Figures, Job, Measurements
from d3hr import ClassGaussian, Prior, denoise, invert, select_groups
from d3hr.data.codec import to_unit_range
from d3hr.distillation.settings import Solver
from d3hr.distillation.solvers import InexactInversion
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.students import new_student
from d3hr.evaluation.training import hard_targets, train_student
from d3hr.prior.families.dit import DiT
from d3hr.prior.model import PRECISIONS
from d3hr.prior.networks import SCHEDULER_CONFIGS, new_autoencoder, new_transformer
from d3hr.prior.presets import PRESETS
from d3hr.prior.settings import Objective
from d3hr.seeds import generator_for, seeded

CLASSES, IMAGES, SIDE, STEPS, LEVEL, GUIDANCE = 3, 8, 16, 12, 4, 2.0
_CPU = torch.device("cpu")
Stage = Callable[[torch.device, str], Tensor]
"""What a stage computes on a device in a precision, such as bf16."""


def measurements(job: Job) -> Measurements:
    """Yield the deviation at each stage, in each precision."""
    student, teacher = job.scale.compared
    steps = {
        "student step": partial(_trained, network=student, protocol="hard"),
        "teacher step": partial(_trained, network=teacher, protocol="teacher"),
    }
    for stage, run in (STAGES | steps).items():
        on_cpu = cache(partial(run, _CPU, "fp32"))
        for precision in ("fp32", "bf16"):
            yield f"{stage} {precision}", partial(_deviation, run, on_cpu, job.device, precision)


def _deviation(run: Stage, on_cpu: Callable[[], Tensor], device: torch.device, precision: str) -> Figures:
    """Return the largest and the median deviation of a value, as shares of the root mean square of all values."""
    expected = on_cpu().double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InexactInversion)  # in bfloat16 a step is as exact as the network
        actual = run(device, precision).double().cpu()
    off = (actual - expected).abs() / expected.square().mean().sqrt()
    return {"largest": float(off.max()), "median": float(off.median())}


def _prior(device: torch.device, precision: str, objective: Objective) -> Prior:
    """Return a small prior whose random weights are the same on every device, and so small that its slope changes smoothly."""
    preset = PRESETS["tiny"].model_copy(update={"autoencoder_widths": (16, 32), "layers": 2, "width": 64})
    with seeded(0):
        vae = new_autoencoder(preset, SIDE)
        transformer = new_transformer(preset, (vae.config.latent_channels, SIDE // 2), CLASSES)
        for parameter in transformer.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
    dtype = PRECISIONS[precision]
    network, autoencoder = (nn.Module.to(part, device, dtype) for part in (transformer, vae))
    return Prior(DiT(network, tuple(map(str, range(CLASSES)))), autoencoder, SCHEDULER_CONFIGS[objective])


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator_for("agreement"))


def _encoded(device: torch.device, precision: str) -> Tensor:
    return _prior(device, precision, "epsilon").encode(_normal(IMAGES, 3, SIDE, SIDE).clamp(-1, 1))


def _decoded(device: torch.device, precision: str) -> Tensor:
    prior = _prior(device, precision, "epsilon")
    return prior.decode(_normal(IMAGES, *prior.latent_shape).to(device))


def _inverted(device: torch.device, precision: str, solver: Solver, objective: Objective = "epsilon") -> Tensor:
    prior = _prior(device, precision, objective)
    latents, labels = _normal(IMAGES, *prior.latent_shape).to(device), torch.zeros(IMAGES, dtype=torch.int64, device=device)
    return invert(prior, latents, labels, level=LEVEL, steps=STEPS, guidance_scale=GUIDANCE, solver=solver)


def _drawn(device: torch.device, precision: str) -> Tensor:
    prior = _prior(device, precision, "epsilon")
    latents, labels = _normal(IMAGES, *prior.latent_shape).to(device), torch.zeros(IMAGES, dtype=torch.int64, device=device)
    return denoise(prior, latents, labels, level=LEVEL, steps=STEPS, guidance_scale=GUIDANCE)


def _statistics(device: torch.device, precision: str) -> Tensor:
    latents = _inverted(device, precision, "ddim").flatten(1)
    gaussian = ClassGaussian.empty(latents.shape[1]).update(latents)
    return torch.cat([gaussian.mean, gaussian.std])


def _matched(device: torch.device, precision: str) -> Tensor:
    """Search a group for the same Gaussians; a pool's scores are float32 in every precision."""
    latents = _normal(64, 256)
    gaussians = {str(name): ClassGaussian.empty(256).update(latents + name) for name in range(CLASSES)}
    return torch.cat([*select_groups(gaussians, 4, strategy="search", num_candidates=5000, device=str(device)).values()])


def _trained(device: torch.device, precision: str, network: str, protocol: str) -> Tensor:
    """Take a step with CutMix, and return by how much it moved the weights."""
    changes = {"steps": 1, "epochs": None, "batch_size": IMAGES, "mix": "cutmix", "shift": 0.0, "flip": False, "precision": precision}
    pixels = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator_for("agreement"))
    labels = torch.arange(IMAGES) % CLASSES
    with seeded(0):
        student = new_student(network, CLASSES, 32)
    before = [weight.detach().clone() for weight in student.parameters()]
    train_student(
        student.to(device),
        lambda positions: to_unit_range(pixels[positions]),
        IMAGES,
        protocol=protocol_named(protocol).model_copy(update=changes),
        targets=hard_targets(labels.to(device), CLASSES),
        image_size=32,
        seed=0,
        title=network,
    )
    moved = zip(student.parameters(), before, strict=True)
    return torch.cat([(now.detach().cpu() - then).flatten() for now, then in moved])


STAGES: dict[str, Stage] = {
    "encode": _encoded,
    "invert ddim": partial(_inverted, solver="ddim"),
    "invert fixed_point": partial(_inverted, solver="fixed_point"),
    "invert ddim, flow": partial(_inverted, solver="ddim", objective="flow"),
    "invert midpoint, flow": partial(_inverted, solver="midpoint", objective="flow"),
    "statistics": _statistics,
    "search": _matched,
    "draw": _drawn,
    "decode": _decoded,
}
