"""Images that are decoded once and then read as pixels: training visits each of them many times, and a photo takes long to decode.

Legend: N images, H = W image side.
"""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from d3hr.data.dataset import ImageData
from d3hr.formatting import size_in_words
from d3hr.progress import SILENT, Progress

IN_MEMORY = 2**30
"""Bytes of pixels that are kept in memory; more are mapped from a temporary file."""
_CHUNK = 256


def decoded(images: ImageData, folder: Path, progress: Progress = SILENT) -> ImageData:
    """Return the same images, whose pixels at their ``image_size`` are kept: in memory up to 1 GiB, above in a temporary file.

    Where they would take more than half of what is free on the disk, they are not kept, and the images are returned as they are.

    Args:
        images: the images; each is decoded once.
        folder: where the temporary file is made.
        progress: where to report.
    """
    shape = (len(images), 3, images.image_size, images.image_size)
    size, free = math.prod(shape), shutil.disk_usage(folder).free
    if size > max(IN_MEMORY, free // 2):
        progress.say(
            f"images are decoded again whenever they are needed: all of them take {size_in_words(size)}, {size_in_words(free)} are free"
        )
        return images
    kept = _array(shape, folder)
    done = 0
    with progress.bar("decoding images", len(images)) as bar:
        for name, count in images.counts.items():
            for start in range(0, count, _CHUNK):
                pixels = images.pixels(name, range(start, min(start + _CHUNK, count)))
                kept[done : done + len(pixels)] = pixels.numpy()
                done += len(pixels)
                bar.update(done, note=name)
    return images.with_pixels(kept)


def _array(shape: tuple[int, ...], folder: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an array of bytes, which nothing has filled."""
    if math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile(dir=folder) as file:  # mapped, it stays until the array is gone
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
