"""Writes tensors as safetensors row by row, for what is too large to be in memory at once; the bytes are those of ``write_tensors``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from d3hr.fileio.atomic import atomic_file, explained
from d3hr.fileio.checksums import KEY, bytes_of, digest_of_tensors

_NAMES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.float16: "F16"}
_UNKNOWN = "0" * 64
"""As long as a checksum."""


@dataclass(frozen=True)
class RowLayout:
    """A tensor that is written row by row: its type, and its shape, of which the first axis counts the rows."""

    dtype: torch.dtype
    shape: Sequence[int]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def write_rows(path: Path, layouts: Mapping[str, RowLayout], rows: Iterable[Mapping[str, Tensor]]) -> None:
    """Write tensors of equally many rows as safetensors with their checksum, atomically; memory holds one row of each at a time.

    Args:
        path: the file.
        layouts: type and shape of each tensor.
        rows: each row of all tensors, by name, in any floating-point type; exactly as many as the layouts say.
    """
    starts, header = _header(layouts, _UNKNOWN)
    with explained(path), atomic_file(path) as temporary:
        with temporary.open("wb") as file:
            file.write(header)
            for index, row in enumerate(rows):
                for name, layout in layouts.items():
                    file.seek(len(header) + starts[name] + index * layout.row_bytes)
                    file.write(bytes_of(row[name].to(layout.dtype).reshape(layout.shape[1:])))
        with safe_open(temporary, framework="pt") as written:  # mapped into memory, not read
            checksum = digest_of_tensors({name: written.get_tensor(name) for name in layouts}, {})
        with temporary.open("r+b") as file:
            file.write(_header(layouts, checksum)[1])


def _header(layouts: Mapping[str, RowLayout], checksum: str) -> tuple[dict[str, int], bytes]:
    """Return where each tensor starts, in the order and the form of the library: the widest types first, then by name."""
    values: dict[str, object] = {"__metadata__": {KEY: checksum}}
    starts, end = dict[str, int](), 0
    for name, layout in sorted(layouts.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        starts[name], end = end, end + layout.shape[0] * layout.row_bytes
        values[name] = {"dtype": _NAMES[layout.dtype], "shape": list(layout.shape), "data_offsets": [starts[name], end]}
    text = json.dumps(values, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return starts, len(text).to_bytes(8, "little") + text
