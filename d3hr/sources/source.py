"""What every source of encoded images gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Source(Protocol):
    """Encoded images with a class each, in a fixed order."""

    class_names: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    ignored: tuple[str, ...]

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that cannot be read is empty."""

    def name(self, index: int) -> str:
        """Return how to call an image in a message."""
