"""What networks take for one image, counted on tensors that have a shape but no values.

FLOPs are those of convolutions, matrix products and attention; a multiplication and an addition count as two (2 per MAC). Activations are
the largest number of bytes of intermediate results that exist at one time; where a device computes attention without storing its matrix,
this is an upper bound.
"""

import math
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from d3hr.evaluation.students import new_student
from d3hr.planning.shapes import PriorShape

_BATCH = 32
"""The larger of two batches whose bytes are counted."""


@dataclass(frozen=True)
class Need:
    """FLOPs and bytes of activations that a network takes for one image; ``fixed`` bytes, such as gradients of weights, it takes once."""

    flops: int
    activations: int
    fixed: int = 0

    def memory(self, images: int) -> int:
        """Return the bytes of intermediate results for a batch of ``images``; none for an empty one."""
        return self.fixed + images * self.activations if images else 0

    def largest_batch(self, memory: float) -> int:
        """Return how many images have activations that fit into ``memory`` bytes; at least one."""
        return max(1, math.floor(memory / max(self.activations, 1)))


@dataclass(frozen=True)
class PriorNeeds:
    """What a prior takes: its network for one prediction without guidance, and the bytes of all weights but those of text encoders."""

    network: Need
    encoder: Need
    decoder: Need
    weights: int


def prior_needs(shape: PriorShape) -> PriorNeeds:
    """Count what a prior of this shape takes."""
    denoiser, autoencoder = shape.parts("meta")
    images, latents, times, inputs = shape.calls(_BATCH)
    encoded = latents.to(images.dtype)
    return PriorNeeds(
        network=_need(lambda n: denoiser(latents[:n], times[:n], {name: value[:n] for name, value in inputs.items()})),
        encoder=_need(lambda n: autoencoder.encode(images[:n])),
        decoder=_need(lambda n: autoencoder.decode(encoded[:n])),
        weights=_num_bytes([*denoiser.network.state_dict().values(), *autoencoder.state_dict().values()]),
    )


@dataclass(frozen=True)
class StudentNeeds:
    """What a student takes for a forward pass, and for a forward and backward pass, with gradients, weights and momentum as fixed part."""

    test: Need
    training: Need


def student_needs(student: str, classes: int, image_size: int) -> StudentNeeds:
    """Count what a student takes; one that is unknown, or images too small for it, raise a ``SettingsError``."""
    with torch.device("meta"):
        network: nn.Module = new_student(student, classes, image_size)
    image = torch.empty(_BATCH, 3, image_size, image_size, device="meta")

    def train(n: int) -> None:
        network.zero_grad()
        network(image[:n]).sum().backward()

    training = _need(train, gradients=True)
    fixed = training.fixed + 2 * _num_bytes(network.parameters())  # weights, and momentum in the optimiser
    return StudentNeeds(test=_need(lambda n: network(image[:n])), training=replace(training, fixed=fixed))


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _need(run: Callable[[int], Any], *, gradients: bool = False) -> Need:
    """Count what ``run(n)`` takes for n images: half the FLOPs of two images, and bytes on the line through two batch sizes."""
    with torch.set_grad_enabled(gradients):
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flops}) as flops:
            run(2)  # batch norm cannot train on one image whose last map is one pixel
        half, full = _peak_bytes(run, _BATCH // 2), _peak_bytes(run, _BATCH)
    return Need(flops.get_total_flops() // 2, 2 * (full - half) // _BATCH, max(2 * half - full, 0))


def _convolution_backward_flops(
    gradient: list[int],
    image: list[int],
    weight: list[int],
    *others: Any,
    out_shape: Any,
) -> int:
    """Return the FLOPs of a convolution's gradients from shapes: those of one forward pass each for its input and its weight, if needed.

    PyTorch's own count takes the channels of all groups together, so it is too high by a factor of the number of groups.
    """
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, output_mask = others
    smaller = image if transposed else gradient
    return 2 * math.prod(weight) * smaller[0] * math.prod(smaller[2:]) * sum(map(bool, output_mask[:2]))


def _peak_bytes(run: Callable[[int], Any], images: int) -> int:
    live = _LiveBytes()
    with live:
        run(images)
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that were created inside the context and still exist; ``peak`` is the largest number at any time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live: dict[int, int] = {}  # storage -> its bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        inputs = {value.untyped_storage()._cdata for value in args if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and (storage := value.untyped_storage())._cdata not in inputs | self._live.keys():
                self._live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._live.pop, storage._cdata)
        self.peak = max(self.peak, sum(self._live.values()))
        return result
