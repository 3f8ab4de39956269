"""Reads and decodes images in threads; how many are held encoded is bounded.

Legend: N images, H = W image side.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d3hr.data.ahead import in_parts
from d3hr.data.sources import Source

HELD = 64
"""How many encoded images a thread holds at once."""


@runtime_checkable
class OnDisk(Protocol):
    """A source whose images are files, which several threads can read at once, and of which a part can be read."""

    def places(self, indices: Sequence[int]) -> list[Path]:
        """Return where the images at ``indices`` are."""


def decode_each(images: Source, rows: Sequence[int], side: int, decode: Callable[[int, bytes], NDArray[np.uint8]]) -> Tensor:
    """Return the pixels uint8 [N, 3, H, W] of the images at ``rows`` of a source.

    Files are read by the threads that decode them, other sources by this one, since not all can be read by several.

    Args:
        images: the source.
        rows: indices in it.
        side: H = W.
        decode: makes pixels [H, W, 3] of the index of an image and its content.
    """
    pixels = np.empty((len(rows), side, side, 3), dtype=np.uint8)
    blobs = None if isinstance(images, OnDisk) else images.read(rows)

    def run(part: slice) -> None:
        contents = images.read(rows[part]) if blobs is None else blobs[part]
        for place, index, blob in zip(range(len(rows))[part], rows[part], contents, strict=True):
            pixels[place] = decode(index, blob)

    in_parts(run, len(rows))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
