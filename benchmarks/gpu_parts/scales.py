"""The sizes of everything that benchmarks/gpu.py measures: full ones for a card, and tiny ones that a CPU runs in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from d3hr.planning.known_shapes import SHAPES
from d3hr.planning.shapes import PriorShape


@dataclass(frozen=True)
class Scale:
    """Sizes.

    Attributes:
        compared: networks of student and teacher whose steps are compared with the CPU's.
        matrix: side of the square matrices whose products are the peak.
        shape: the prior whose inversion, drawing, encoding and decoding are measured.
        batches: images at a time in inversion and drawing.
        levels: steps of the grid that are taken each way, to measure one.
        coded: images at a time in encoding and decoding.
        student: network of the steps, and side and number of its images at a time.
        teacher: the same of a teacher.
        classes: of student and teacher.
        steps: steps of the longer of two trainings, whose difference is measured.
        compiler: backend of ``torch.compile``.
        preset: of the prior that is fitted.
        fit_seconds: longest time of the fit; None takes what is left.
        per_class: images of each class to fit to; None takes all.
        training_steps: of a student on a set; None takes those of the protocol.
        set_seeds: how many sets of each kind are made.
    """

    compared: tuple[str, str]
    matrix: int
    shape: PriorShape
    batches: Sequence[int]
    levels: int
    coded: int
    student: tuple[str, int, int]
    teacher: tuple[str, int, int]
    classes: int
    steps: int
    compiler: str
    preset: str
    fit_seconds: float | None
    per_class: int | None
    training_steps: int | None
    set_seeds: int


_XL = SHAPES["facebook/DiT-XL-2-256"]
_AUTOENCODER = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
_SMALL = replace(
    _XL.with_network(num_layers=1, num_attention_heads=2, attention_head_dim=8, sample_size=4, num_embeds_ada_norm=10),
    autoencoder=_AUTOENCODER,
    class_names=(),
)

SCALES = {
    "full": Scale(
        compared=("convnet3", "resnet18"),
        matrix=8192,
        shape=_XL,
        batches=(64, 256),
        levels=6,
        coded=64,
        student=("resnet18", 224, 100),
        teacher=("resnet18", 224, 256),
        classes=1000,
        steps=12,
        compiler="inductor",
        preset="small",
        fit_seconds=None,
        per_class=None,
        training_steps=None,
        set_seeds=3,
    ),
    "tiny": Scale(
        compared=("convnet1", "convnet1"),
        matrix=64,
        shape=_SMALL,
        batches=(2,),
        levels=1,
        coded=2,
        student=("convnet1", 8, 4),
        teacher=("convnet1", 8, 4),
        classes=3,
        steps=2,
        compiler="eager",
        preset="tiny",
        fit_seconds=2.0,
        per_class=24,
        training_steps=2,
        set_seeds=1,
    ),
}
