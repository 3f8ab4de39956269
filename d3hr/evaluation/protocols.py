"""How a student is trained, as data: every row of a table uses the same protocol.

A protocol is a YAML file with the fields of :class:`Protocol`; those with a name are in ``protocol_files``. A file may start from another
(``base: hard``, or ``base: mine.yaml`` for a file in the same folder), and may give other values from a number of images per class on
(``by_ipc: {50: {batch_size: 100}}``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from d3hr.errors import SettingsError, settings_error
from d3hr.fileio.structured import read_mapping

_FILES = Path(__file__).parent / "protocol_files"
_AROUND = ("about", "base", "by_ipc")
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
    flip: bool = False
    """Random horizontal flips; not for digits and letters."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """How images of a batch are mixed in pairs, each pair with its own share from Beta(1, 1). ``mixup``: weighted sum (arXiv 1710.09412).
    ``cutmix``: a rectangle of one in the other, whose area is the share (arXiv 1905.04899)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network in training: float32, or bfloat16 where PyTorch's autocast does; tests are in float32."""
    checks: int = Field(default=10, gt=0)
    """Number of tests of the student, evenly over the training; tables report the last, and the best under its own name."""

    @model_validator(mode="after")
    def _no_contradiction(self) -> Protocol:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs is needed")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("crop_scale is two shares of the area, 0 < smallest <= largest <= 1")
        if self.crop_scale is not None and self.shift:
            raise ValueError("shift and crop_scale both move the image: one of them is enough")
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
    protocol_named(name, ipc=1)


def protocol_named(name: str | Path | Protocol, *, ipc: int | None = None) -> Protocol:
    """Return the protocol of a name, one of :func:`protocol_names`, or of a YAML file, for sets of ``ipc`` images per class.

    A protocol is returned as it is.

    Raises:
        SettingsError: there is no such protocol, a field is wrong, or it depends on the images per class, which are not given.
    """
    if isinstance(name, Protocol):
        return name
    file = _file_of(str(name))
    if not file.is_file():
        names = ", ".join(protocol_names())
        raise SettingsError("Unknown protocol.", found=repr(str(name)), hint=f"use one of: {names}; or a .yaml file of your own.")
    fields = _fields(file)
    by_ipc = fields.pop("by_ipc", {})
    if by_ipc and ipc is None:
        raise SettingsError(f"Protocol {name} depends on the images per class.", found="none given", hint="give ipc.")
    for least in sorted(by_ipc):
        if ipc is not None and ipc >= least:
            fields |= by_ipc[least]
    return protocol_from(fields)


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


def _fields(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the fields of a file laid over those of its base, and its ``by_ipc``; ``above`` are the files that start from it."""
    hint = "write a line 'field: value' for each field; by_ipc maps a number of images per class to such fields."
    read = read_mapping(file, "protocol", hint)
    if not _is_by_number(read.get("by_ipc", {})):
        raise SettingsError(f"{file} is not a protocol.", found="by_ipc that is no mapping of numbers to fields", hint=hint)
    below: dict[str, Any] = {}
    if (base := read.get("base")) is not None:
        start = _file_of(str(base), file.parent)
        if not start.is_file() or start.resolve() in (each.resolve() for each in (*above, file)):
            raise SettingsError(
                f"{file} starts from an unknown protocol, or from itself.",
                found=repr(base),
                hint=f"use one of: {', '.join(protocol_names())}; or a .yaml file in the same folder.",
            )
        below = _fields(start, (*above, file))
    own = {field: value for field, value in read.items() if field not in _AROUND}
    return {**below, "name": file.stem, **own, "by_ipc": {**below.get("by_ipc", {}), **read.get("by_ipc", {})}}


def _is_by_number(read: Any) -> bool:
    return isinstance(read, dict) and all(isinstance(least, int) and isinstance(fields, dict) for least, fields in read.items())
