"""The built-in data set: scikit-learn's handwritten digits."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from d3hr.data.codec import png_of
from d3hr.errors import DataError, listed


class Digits:
    """scikit-learn's 1,797 handwritten digits (8 x 8, UCI), split once: 1,197 train, 240 validation, 360 test."""

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        rest, test = train_test_split(np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0)
        train, validation = train_test_split(rest, test_size=240, stratify=digits.target[rest], random_state=0)
        parts = {"train": train, "validation": validation, "test": test}
        if split not in parts:
            raise DataError(f"digits has no split {split!r}.", found=f"splits: {listed(list(parts))}", hint="name one of these.")
        self._rows = np.sort(parts[split])
        self._pixels = np.round(digits.images[self._rows] * (255 / 16)).astype(np.uint8)
        self.labels = digits.target[self._rows].astype(np.int64)
        self.class_names = tuple(str(name) for name in digits.target_names)
        self.ignored: tuple[str, ...] = ()

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the images at ``indices``, encoded as PNG."""
        return [png_of(Image.fromarray(self._pixels[index])) for index in indices]

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its row in scikit-learn's digits."""
        return f"digits[{self._rows[index]}]"
