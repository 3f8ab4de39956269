"""Which precision to compute in: bfloat16 where the device has units of its own for it, not conversions before and after each product."""

from dataclasses import dataclass
from typing import Literal

import torch

from d3hr.errors import SettingsError

AMPERE = 8
"""The first major compute capability of CUDA whose tensor cores take bfloat16."""

WIDE = 192
"""The narrowest transformer that trains faster in bfloat16 on a CPU with such units: below, casts cost more than products gain."""


@dataclass(frozen=True)
class Units:
    """What a device can do.

    Attributes:
        kind: as ``torch.device.type``.
        capability: of a CUDA device, its compute capability, such as (8, 0).
        avx512_bf16: of a CPU, whether it has dot products of bfloat16.
        amx: of a CPU, whether it has tiles for products of bfloat16 matrices.
    """

    kind: str
    capability: tuple[int, int] = (0, 0)
    avx512_bf16: bool = False
    amx: bool = False

    @classmethod
    def of(cls, device: torch.device) -> "Units":
        """Return what a device of this machine can do."""
        if device.type == "cuda":
            return cls("cuda", torch.cuda.get_device_capability(device))
        if device.type != "cpu":
            return cls(device.type)
        return cls("cpu", avx512_bf16=torch.cpu._is_avx512_bf16_supported(), amx=torch.cpu._is_amx_tile_supported())


def dtype_held(asked: torch.dtype | str | None, device: torch.device, width: int | None = None) -> torch.dtype:
    """Return the precision to hold a prior in that inverts and draws.

    It is what was asked for, by default float32; for "auto" it follows from the units by the rule of :func:`training_precision`, for a
    network of ``width`` channels, if that is known. Anything else than float32, bfloat16 and float16 is a ``SettingsError``.
    """
    if asked == "auto":
        return torch.bfloat16 if training_precision(Units.of(device), width or WIDE) == "bf16" else torch.float32
    if asked is None:
        return torch.float32
    if not isinstance(asked, torch.dtype) or asked not in (torch.float32, torch.bfloat16, torch.float16):
        raise SettingsError("Unknown precision.", found=f"{asked}", hint='use float32, bfloat16, float16 or "auto".')
    return asked


def training_precision(units: Units, width: int) -> Literal["fp32", "bf16"]:
    """Return the precision to train a transformer of so many channels in: bf16 where there are units for it, and work enough for them.

    A CPU without them takes ten times as long in bf16; one with them gains nothing below a width of :data:`WIDE` (docs/priors.md).
    """
    if units.kind == "cuda":
        return "bf16" if units.capability[0] >= AMPERE else "fp32"
    return "bf16" if units.kind == "cpu" and (units.avx512_bf16 or units.amx) and width >= WIDE else "fp32"
