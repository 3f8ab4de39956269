"""A GPU that is not there: tensors that have device, type and shape but no values, on which PyTorch checks every operation.

``FakeTensorMode`` refuses operations between devices. What it leaves out is added here: values that are read from the device, which wait
for it, are counted; and a generator of another device than the numbers that it draws is refused.

PyTorch without CUDA has no guard for devices of that kind: that of tensors without values takes its place. Its engine asks CUDA for
streams: gradients are not computed, but found in the graph and made, so that optimisers have something to work with.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from d3hr.prior.model import Prior

_REGISTRY = "_ZN3c104impl26device_guard_impl_registryE"
_CUDA, _META = 1, 14
"""Numbers of c10::DeviceType."""
_READS: dict[Any, Any] = {
    Tensor.__bool__: True,
    Tensor.__float__: 0.0,
    Tensor.__int__: 0,
    Tensor.__index__: 0,
    Tensor.item: 0.0,
}
"""What a read returns: of a check that all is well, that it is, and of a residual, that there is none."""
_MOVES = (Tensor.cpu, Tensor.to, Tensor.numpy)
T = TypeVar("T", bound=nn.Module)


class FakeCuda(TorchFunctionMode):
    """What counts reads, and checks generators, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        """Number of reads of values on the device, by the name of the method; copies to the CPU are ``copy``, and from it ``upload``."""
        self._fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args and isinstance(args[0], FakeTensor) else None
        on_device = first is not None and first.device.type == "cuda"
        if first is not None and func in _READS:
            self.count(first, func.__name__)
            return _READS[func]
        if first is not None and func is Tensor.backward:
            _give_gradients(first)
            return None
        with self._fakes if any(map(_is_fake, tree_leaves((args, kwargs)))) else nullcontext():
            result = func(*args, **(kwargs or {}))
        if on_device and func in _MOVES and result.device.type == "cpu":
            self.reads["copy"] += 1
        if func is Tensor.to and not on_device and result.device.type == "cuda":
            self.reads["upload"] += 1
        generator = (kwargs or {}).get("generator")
        if isinstance(generator, torch._C.Generator) and isinstance(result, Tensor) and generator.device.type != result.device.type:
            raise RuntimeError(f"a generator of {generator.device} draws numbers on {result.device}")
        return result

    def count(self, value: Tensor, method: str) -> None:
        """Count a read of a value, if it is on the device."""
        if value.device.type == "cuda":
            self.reads[method] += 1

    def listed(self, value: Tensor) -> Any:
        """Return a value as a list, in place of ``FakeTensor.tolist``, which reads one number after the other."""
        self.count(value, "tolist")
        return torch.zeros(value.shape).tolist()


def _is_fake(value: Any) -> bool:
    """Return whether a value has to do with a fake device: a tensor there, or one that was, or the device itself."""
    named = isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda"))
    return torch.device(value).type == "cuda" if named else isinstance(value, FakeTensor)


def _give_gradients(loss: Tensor) -> None:
    """Give a gradient to each leaf of the graph of a loss."""
    todo, seen = [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        if (leaf := getattr(node, "variable", None)) is not None:
            leaf.grad = torch.empty_like(leaf)


class Generator(torch._C.Generator):
    """A generator of the CPU that says to be of a device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._device = torch.device(device)

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        return super().__new__(cls)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._device

    def manual_seed(self, seed: int) -> Generator:
        super().manual_seed(seed)
        return self


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Let tensors be made on CUDA devices of which there are none."""
    mode = FakeCuda()
    with ExitStack() as stack:
        stack.enter_context(_guarded())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(FakeTensor, "tolist", lambda value: mode.listed(value))
        patch.setattr(nn.Module, "to", _moved)
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "get_rng_state", lambda device=0: None)
        patch.setattr(torch.cuda, "set_rng_state", lambda state, device=0: None)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "default_generators", (torch._C.Generator(),) * 2)
        stack.enter_context(mode)
        yield mode


@contextmanager
def _guarded() -> Iterator[None]:
    """Have operations on CUDA tensors guarded by what guards those without values, where PyTorch has no CUDA."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    try:
        guards = (ctypes.c_void_p * (_META + 1)).in_dll(library, _REGISTRY)
    except (OSError, ValueError):
        pytest.skip("this PyTorch hides its device guards")
    before = guards[_CUDA]
    guards[_CUDA] = before or guards[_META]
    try:
        yield
    finally:
        guards[_CUDA] = before


def _moved(network: T, *where: Any, **options: Any) -> T:
    """Move a network in place; ``nn.Module.to`` would swap tensors, which fakes do not allow."""
    device, dtype, *_ = torch._C._nn._parse_to(*where, **options)
    for module in network.modules():
        for kind in ("_parameters", "_buffers"):
            for name, value in module.__dict__[kind].items():
                if value is None:
                    continue
                moved = torch.empty_strided(
                    value.shape,
                    value.stride(),
                    dtype=(dtype or value.dtype) if value.is_floating_point() else value.dtype,
                    device=device or value.device,
                )
                module.__dict__[kind][name] = nn.Parameter(moved, value.requires_grad) if isinstance(value, nn.Parameter) else moved
    return network


def on_device(prior: Prior, device: torch.device, dtype: torch.dtype) -> Prior:
    """Move a prior to a device, in a precision, in place."""
    nn.Module.to(prior.network, device, dtype)
    nn.Module.to(prior.vae, device, prior.vae.dtype if type(prior.vae).__name__ == "Pixels" else dtype)
    return prior
