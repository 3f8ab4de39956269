"""How a student is trained, as data: every row of a table uses the same protocol.

A protocol is a YAML file with the fields of :class:`Protocol`; those with a name are in ``protocol_files``. A file may start from another
(``base: hard``, or ``base: mine.yaml`` for a file in the same folder), and may give other values from a number of images per class on
(``by_ipc: {50: {batch_size: 100}}``) or from a number of classes on (``by_classes``, which may hold a ``by_ipc``). What comes later wins:
all that the base says, the file's own fields, its ``by_ipc``, its ``by_classes``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from d3hr.errors import SettingsError, settings_error
from d3hr.fileio.structured import read_mapping
from d3hr.prior.precision import WIDE, Units, training_precision

_FILES = Path(__file__).parent / "protocol_files"
LARGE = 64
"""Side, in pixels, of the smallest images on which networks are trained in bfloat16 unless it is asked for: the products of smaller ones
take less time than the casts before and after them."""
_BY = {"by_ipc": "images per class", "by_classes": "classes"}
"""Keys of a file that hold other fields from a number on, in the order in which they apply, and of what the number is."""
_AROUND = ("about", "base", *_BY)
"""Keys of a file that are not fields of a protocol."""


class Protocol(BaseModel):
    """One way to train a student; fields out of range or in contradiction are refused (by :func:`protocol_from` as ``SettingsError``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    """Its name in tables."""
    labels: Literal["hard", "online", "stored"] = "hard"
    """``hard``: cross-entropy with the class of each image. ``online``: KL divergence from the teacher's probabilities of every augmented
    batch. ``stored``: KL divergence from its probabilities of the images as they are, computed once and stored. Where images are mixed,
    hard and stored targets are mixed in the same shares."""
    temperature: float = Field(default=1.0, gt=0)
    """T, by which the logits of teacher and student are divided before softmax, for soft labels (arXiv 1503.02531)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of a hard label that is spread over all classes."""
    steps: int | None = Field(default=None, gt=0)
    """Optimiser steps, whatever the size of the set; give this or ``epochs``."""
    epochs: int | None = Field(default=None, gt=0)
    """Passes over the set; give this or ``steps``."""
    batch_size: int = Field(gt=0)
    """Largest number of images per step; the images of a pass are divided evenly among its steps."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """``sgd``: stochastic gradient descent with momentum. ``adamw``: Adam with decoupled weight decay (arXiv 1711.05101)."""
    learning_rate: float = Field(gt=0)
    """Highest learning rate: that of the first step, or of the end of the warm-up."""
    learning_rate_by_student: dict[str, Annotated[float, Field(gt=0)]] = {}
    """The highest learning rate of students, by name, that have another one."""
    schedule: Literal["cosine", "half_cosine", "step"] = "cosine"
    """``cosine``: down to zero, as 0.5 (1 + cos(pi e / E)). ``half_cosine``: down to half, as 0.5 (1 + cos(pi e / 2E)). ``step``: a tenth
    from the middle on. The time e of E counts whole epochs where the length is given in ``epochs``, else steps."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps over which the learning rate rises linearly, multiplied with the schedule."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the running average of gradients: SGD's momentum, AdamW's first beta (its second is 0.999)."""
    nesterov: bool = False
    """Whether SGD uses Nesterov momentum."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay: added to the gradient in SGD, applied to the weights in AdamW."""
    decay_vectors: bool = True
    """Whether weight decay applies to 1-D parameters too, which are biases and the scales of norms."""
    shift: float = Field(default=0.0, ge=0, lt=1)
    """Largest random translation, as a share of the side, filled by repeating the border; 0 is none."""
    crop_scale: tuple[float, float] | None = None
    """Smallest and largest share of the area that a random crop (aspect 3/4 to 4/3) keeps, before it is resized to the whole side; None is
    no crop."""
    crop_stored: bool = False
    """Whether crops are taken from the images of the set at its own side, so that an image is resized once, from its own pixels; else the
    images are resized to the student's side before they are cropped."""
    flip: bool = False
    """Random horizontal flips; not for digits and letters."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """How images of a batch are mixed in pairs. ``mixup``: weighted sum, each pair with its own share from Beta(1, 1) (arXiv 1710.09412).
    ``cutmix``: a rectangle of one in the other, the same for all pairs of a batch: its area is from Beta(1, 1), its centre anywhere, what
    lies outside is cut off, and the share is what is left of it (arXiv 1905.04899)."""
    test_crop: float = Field(default=1.0, gt=0, le=1)
    """Share of the side of a test image that the student sees, in its centre: 0.875 is a resize to 8/7 of the side and a centre crop."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """Arithmetic of the network in training: float32, or bfloat16 where PyTorch's autocast does; tests are in float32. ``auto`` is bfloat16
    for images of at least 64 pixels where the device has units for it, else float32; results say which it was."""
    checks: int = Field(default=10, gt=0)
    """Number of tests of the student, evenly over the training; tables report the last, and the best under its own name."""
    best_from: int = Field(default=0, ge=0)
    """Epoch, or step where the length is given in steps, counted from 0, from whose end on the student is tested; 0 is the whole training.
    The best accuracy is then the best of ``checks`` tests from there to the end."""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Protocol:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs is needed")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("crop_scale is two shares of the area, 0 < smallest <= largest <= 1")
        if self.crop_scale is not None and self.shift:
            raise ValueError("shift and crop_scale both move the image: one of them is enough")
        if self.crop_stored and self.crop_scale is None:
            raise ValueError("crop_stored needs crop_scale")
        if self.labels == "hard" and self.temperature != 1:
            raise ValueError("temperature is for soft labels")
        if self.labels != "hard" and self.label_smoothing:
            raise ValueError("label_smoothing is for hard labels")
        if self.optimiser == "adamw" and self.nesterov:
            raise ValueError("nesterov is for sgd")
        return self

    @property
    def length(self) -> str:
        """The length of a training, in words: ``200 steps`` or ``2000 epochs``."""
        return f"{self.steps} steps" if self.epochs is None else f"{self.epochs} epochs"

    @property
    def soft(self) -> bool:
        """Whether it needs a teacher."""
        return self.labels != "hard"

    def for_student(self, student: str) -> Protocol:
        """Return the protocol with the learning rate that it has for a student."""
        return self.model_copy(update={"learning_rate": self.learning_rate_by_student.get(student, self.learning_rate)})

    def on(self, device: torch.device, image_size: int) -> Protocol:
        """Return the protocol with the precision that ``auto`` means on a device, for images of ``image_size`` pixels a side."""
        if self.precision != "auto":
            return self
        worth = image_size >= LARGE and training_precision(Units.of(device), WIDE) == "bf16"
        return self.model_copy(update={"precision": "bf16" if worth else "fp32"})

    def ticks(self, count: int) -> tuple[int, int]:
        """Return the number of ticks of a training on ``count`` images, and the number of optimiser steps per tick.

        The learning rate changes at each tick: an epoch where the length is given in epochs, else a step.
        """
        if self.epochs is not None:
            return self.epochs, math.ceil(count / self.batch_size)
        assert self.steps is not None
        return self.steps, 1


def protocol_names() -> tuple[str, ...]:
    """Return the names that :func:`protocol_named` knows."""
    return tuple(sorted(file.stem for file in _FILES.glob("*.yaml")))


def require_protocol(name: str) -> None:
    """Refuse the name of an unknown protocol, or of a file that is not a protocol, before any work is done."""
    protocol_named(name, ipc=1, classes=2)


def protocol_named(name: str | Path | Protocol, *, ipc: int | None = None, classes: int | None = None) -> Protocol:
    """Return the protocol of a name, one of :func:`protocol_names`, or of a YAML file, for ``ipc`` images of each of ``classes`` classes.

    A protocol is returned as it is.

    Raises:
        SettingsError: there is no such protocol, a field is wrong, or it depends on one of these numbers, which is not given.
    """
    if isinstance(name, Protocol):
        return name
    file = _file_of(str(name))
    if not file.is_file():
        names = ", ".join(protocol_names())
        raise SettingsError("Unknown protocol.", found=repr(str(name)), hint=f"use one of: {names}; or a .yaml file of your own.")
    return protocol_from(_fields(file, {"by_ipc": ipc, "by_classes": classes}))


def protocol_from(fields: Mapping[str, Any]) -> Protocol:
    """Return the protocol with these fields, for example those of ``protocol_settings`` in results.json.

    Raises:
        SettingsError: a field is unknown, missing or out of range, or two fields contradict; it names the field.
    """
    try:
        return Protocol(**fields)
    except ValidationError as error:
        hint = f"the fields of a protocol are: {', '.join(Protocol.model_fields)}."
        raise settings_error(error, "protocol.", hint) from None


def _file_of(name: str, folder: Path = Path()) -> Path:
    """Return the file of a protocol, from its name or from a path relative to ``folder``."""
    return folder / name if name.endswith((".yaml", ".yml")) else _FILES / f"{name}.yaml"


def _fields(file: Path, numbers: Mapping[str, int | None], above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the fields of a file laid over those of its base; ``above`` are the files that start from it.

    ``numbers`` has the number that each key of :data:`_BY` asks for.
    """
    hint = "write a line 'field: value' for each field; by_ipc and by_classes map a number to such fields."
    read = read_mapping(file, "protocol", hint)
    below: dict[str, Any] = {}
    if (base := read.get("base")) is not None:
        start = _file_of(str(base), file.parent)
        if not start.is_file() or start.resolve() in (each.resolve() for each in (*above, file)):
            raise SettingsError(
                f"{file} starts from an unknown protocol, or from itself.",
                found=repr(base),
                hint=f"use one of: {', '.join(protocol_names())}; or a .yaml file in the same folder.",
            )
        below = _fields(start, numbers, (*above, file))
    try:
        return {**below, "name": file.stem, **_layers(read, numbers)}
    except ValueError as error:
        raise SettingsError(f"{file} is not a protocol for these sets.", found=str(error), hint=hint) from None


def _layers(read: Mapping[str, Any], numbers: Mapping[str, int | None]) -> dict[str, Any]:
    """Return the fields of a mapping, with those that its keys of :data:`_BY` hold for these numbers laid over them."""
    fields = {field: value for field, value in read.items() if field not in _AROUND}
    for key, of in _BY.items():
        layers, number = read.get(key, {}), numbers[key]
        if not isinstance(layers, dict) or not all(isinstance(n, int) and isinstance(layer, dict) for n, layer in layers.items()):
            raise ValueError(f"{key} that is no mapping of numbers to fields")
        if layers and number is None:
            raise ValueError(f"{key}, but the number of {of} is not known here")
        for least in sorted(layers):
            if number is not None and number >= least:
                fields |= _layers(layers[least], numbers)
    return fields
