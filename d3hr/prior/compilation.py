"""Lets ``torch.compile`` translate a network, or says why it cannot."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from d3hr.errors import SettingsError


def compile_network(network: Any, backend: str, run: Callable[[], object]) -> None:
    """Have a network compiled when it is called, which ``run`` does once.

    Raises:
        SettingsError: there is no compiler that works; the network is then as it was.
    """
    network.compile(backend=backend)
    try:
        run()
    except RuntimeError as error:  # torch._dynamo's and the backends' errors are such
        network._compiled_call_impl = None
        raise SettingsError(
            "The prior could not be compiled.",
            found=str(getattr(error, "inner_exception", error)).strip().split("\n", 1)[0],
            hint="install a C++ compiler (for the CPU) or Triton (for CUDA), or leave --compile out.",
        ) from error


def of_any_size(*batches: Tensor) -> None:
    """Let one translation do for batches of all sizes: the last batch of a class is smaller, and each size would be compiled once more."""
    for batch in batches:
        torch._dynamo.maybe_mark_dynamic(batch, 0)
