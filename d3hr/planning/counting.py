"""What networks take for one image, counted on tensors that have a shape but no values.

FLOPs are those of convolutions, matrix products and attention, a multiplication and an addition apart (2 a MAC). Activations are the
largest number of bytes of intermediate results that live at one time; where a device runs attention without writing its matrix down,
this is an upper bound.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from d3hr.evaluation.students import new_student
from d3hr.planning.shapes import PriorShape


@dataclass(frozen=True)
class Need:
    """What one image takes.

    Attributes:
        flops: floating-point operations.
        activations: bytes of intermediate results at their most.
    """

    flops: int
    activations: int


@dataclass(frozen=True)
class PriorNeeds:
    """What a prior takes for one image in each of its networks, and for its weights.

    Attributes:
        transformer: one noise prediction without guidance.
        encoder: an image into a latent.
        decoder: a latent into an image.
        weights: bytes of all weights.
        tensors: how many tensors these are.
    """

    transformer: Need
    encoder: Need
    decoder: Need
    weights: int
    tensors: int


def prior_needs(shape: PriorShape) -> PriorNeeds:
    """Count what a prior of this shape takes."""
    transformer, autoencoder = shape.networks("meta")
    weights = [*transformer.state_dict().values(), *autoencoder.state_dict().values()]
    image = torch.empty(1, 3, shape.image_size, shape.image_size, device="meta", dtype=shape.dtype)
    latent = torch.empty(1, *shape.latent_shape, device="meta", dtype=shape.dtype)
    number = torch.zeros(1, dtype=torch.int64, device="meta")
    return PriorNeeds(
        transformer=_need(lambda: transformer(latent, timestep=number, class_labels=number)),
        encoder=_need(lambda: autoencoder.encode(image)),
        decoder=_need(lambda: autoencoder.decode(latent)),
        weights=sum(value.numel() * value.element_size() for value in weights),
        tensors=len(weights),
    )


@dataclass(frozen=True)
class StudentNeeds:
    """What a student takes for one image.

    Attributes:
        test: a forward pass.
        training: a forward and backward pass.
    """

    test: Need
    training: Need


def student_needs(student: str, classes: int, image_size: int) -> StudentNeeds:
    """Count what a student takes.

    Raises:
        SettingsError: the student is unknown or the images are too small for it.
    """
    with torch.device("meta"):
        network: nn.Module = new_student(student, classes, image_size)
    image = torch.empty(1, 3, image_size, image_size, device="meta")
    return StudentNeeds(
        test=_need(lambda: network(image)),
        training=_need(lambda: network(image).sum().backward(), gradients=True),
    )


def _need(run: Callable[[], Any], *, gradients: bool = False) -> Need:
    with torch.set_grad_enabled(gradients):
        with FlopCounterMode(display=False) as flops:
            run()
        with _LiveBytes() as live:
            run()
    return Need(flops.get_total_flops(), live.most)


class _LiveBytes(TorchDispatchMode):
    """Follows how many bytes of tensors, made while it is on, live at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        given = {value.untyped_storage()._cdata for value in args if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self._follow(value, given)
        self.most = max(self.most, self._now)
        return result

    def _follow(self, value: Tensor, given: set[int]) -> None:
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self._known or key in given:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
