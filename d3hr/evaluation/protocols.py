"""How a student is trained, as data: every row of a table goes through the same protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from d3hr.errors import SettingsError


class Protocol(BaseModel):
    """One way to train a student.

    Raises:
        pydantic.ValidationError: a field is unknown or out of range, or two fields contradict; :func:`protocol_from` says which in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    """What a table calls it."""
    labels: Literal["hard"] = "hard"
    """``hard``: cross-entropy with the class of each image, or with the shares of two classes where images are mixed."""
    steps: int | None = Field(default=None, gt=0)
    """Optimiser steps, whatever the size of the set; give this or ``epochs``."""
    epochs: int | None = Field(default=None, gt=0)
    """Passes over the set; give this or ``steps``."""
    batch_size: int = Field(gt=0)
    """Images a step; a smaller set is one batch, and the last batch of a pass may be smaller."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """``sgd``: stochastic gradient descent with momentum. ``adamw``: Adam with decoupled weight decay (arXiv 1711.05101)."""
    learning_rate: float = Field(gt=0)
    """Learning rate of the first step."""
    schedule: Literal["cosine", "half_cosine"] = "cosine"
    """``cosine``: down to zero, as 0.5 (1 + cos(pi e / E)). ``half_cosine``: down to half, as 0.5 (1 + cos(pi e / 2E)). The time e
    counts whole epochs where the length is given in ``epochs``, else steps."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the past in the running gradient: SGD's momentum, AdamW's first beta (its second is 0.999)."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay: added to the gradient in SGD, applied to the weights in AdamW."""
    decay_vectors: bool = True
    """Whether 1-D parameters, which are biases and the scales of norms, decay as well."""
    shift: float = Field(default=0.0, ge=0, lt=1)
    """Largest random translation, as a share of the side, filled by repeating the border; 0 is none."""
    crop_scale: tuple[float, float] | None = None
    """Smallest and largest share of the area that a random crop (aspect 3/4 to 4/3) keeps, before it is resized to the whole side; None is
    no crop."""
    flip: bool = False
    """Random horizontal flips; not for digits and letters."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """How images of a batch are mixed in pairs, each pair with its own share from Beta(1, 1). ``mixup``: weighted sum
    (arXiv 1710.09412). ``cutmix``: a rectangle of the one in the other (arXiv 1905.04899)."""

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("exactly one of steps and epochs is needed")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError("crop_scale is two shares of the area, 0 < smallest <= largest <= 1")
        if self.crop_scale is not None and self.shift:
            raise ValueError("shift and crop_scale both move the image: one of them is enough")
        return self

    @property
    def length(self) -> str:
        """How long it trains, in words: ``200 steps`` or ``2000 epochs``."""
        return f"{self.steps} steps" if self.epochs is None else f"{self.epochs} epochs"

    def ticks(self, count: int) -> tuple[int, int]:
        """Return the ticks of the schedule's clock in a training on ``count`` images, and the optimiser steps of each.

        A tick is an epoch where the length is given in epochs, else a step.
        """
        if self.epochs is not None:
            return self.epochs, math.ceil(count / self.batch_size)
        assert self.steps is not None
        return self.steps, 1


PAPER_HARD: dict[int, tuple[int, int]] = {10: (2000, 50), 50: (1500, 100), 100: (1000, 100)}
"""Epochs and batch size of the paper's hard-label variant for each number of images per class (arXiv 2505.18399). Numbers between
take the values of the next smaller one; below 10, of which the paper is silent, those of 10 hold. For 100 it states no batch size of
its own: that of 50 holds."""


def paper_hard(ipc: int) -> Protocol:
    """Return the paper's hard-label variant for ``ipc`` images per class: cross-entropy on mixup, AdamW, half-cosine."""
    epochs, batch_size = PAPER_HARD[max((stated for stated in PAPER_HARD if stated <= ipc), default=min(PAPER_HARD))]
    return Protocol(
        name="paper-hard",
        epochs=epochs,
        batch_size=batch_size,
        optimiser="adamw",
        learning_rate=1e-3,
        schedule="half_cosine",
        weight_decay=0.01,
        decay_vectors=False,
        crop_scale=(0.08, 1.0),
        flip=True,
        mix="mixup",
    )


PROTOCOLS: dict[str, Protocol | Callable[[int], Protocol]] = {
    "hard": Protocol(name="hard", steps=1000, batch_size=256, learning_rate=0.01, shift=0.125),
    "quick": Protocol(name="quick", steps=200, batch_size=256, learning_rate=0.05),
    "paper-hard": paper_hard,
}
"""Protocols by name; one that depends on the images per class is a function of them. ``quick`` was chosen on random real digits and
their validation split alone (IPC 10, 200 steps): learning rate 0.05 without shifts 95.1 %, with shifts 93.9 %, 0.01 without 93.5 %,
0.1 without 95.4 %. A shift is too much for 8 pixels."""


def require_protocol(name: str) -> None:
    """Refuse a name that no protocol has, before any work is done.

    Raises:
        SettingsError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise SettingsError("Unknown protocol.", found=repr(name), do=f"use one of: {', '.join(PROTOCOLS)}.")


def protocol_named(name: str, *, ipc: int | None = None) -> Protocol:
    """Return the protocol called ``name``.

    Args:
        name: one of :data:`PROTOCOLS`.
        ipc: images per class of the set to train on, for protocols that depend on it.

    Raises:
        SettingsError: there is none of that name, or it depends on the images per class, which are not given.
    """
    require_protocol(name)
    entry = PROTOCOLS[name]
    if isinstance(entry, Protocol):
        return entry
    if ipc is None:
        raise SettingsError(f"Protocol {name} depends on the images per class.", found="none given", do="give ipc.")
    return entry(ipc)


def protocol_from(fields: Mapping[str, Any]) -> Protocol:
    """Return the protocol with these fields, for example of a recipe file or of ``protocol_settings`` in results.json.

    Args:
        fields: values by the names of :class:`Protocol`'s fields.

    Raises:
        SettingsError: a field is unknown, missing or out of range, or two fields contradict; it names the field.
    """
    try:
        return Protocol(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["protocol", *(str(part) for part in first["loc"])])
        raise SettingsError(
            f"{where}: {first['msg'].removeprefix('Value error, ')}.",
            found=repr(first["input"]),
            do=f"the fields of a protocol are: {', '.join(Protocol.model_fields)}.",
        ) from None
