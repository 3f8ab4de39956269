"""Reads and decodes batches of real images before they are needed: in a thread, or in worker processes that live as long as the loader.

Legend: N images, H = W image size in pixels.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from d3hr.data.ahead import DECODERS, ahead
from d3hr.data.codec import to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.data.transfer import pinned, to_device
from d3hr.errors import D3hrError, require_at_least

_Request = tuple[str, tuple[int, ...]]
_CPU = torch.device("cpu")


class Batches:
    """Batches of the images of a data set, each decoded while the one before is used, and given on a device.

    They are decoded by ``decoders`` worker processes, or, if there are none, in a thread of this one. A program that starts some must guard
    its main module (``if __name__ == "__main__"``), as Python's ``multiprocessing`` requires.
    """

    def __init__(self, images: ImageData, decoders: int = 0, device: torch.device = _CPU) -> None:
        require_at_least("--decoders", decoders, 0)
        self._images, self._device = _Decoded(images), device
        self._requests: list[_Request] = []
        self._loader: DataLoader[Tensor | D3hrError] | None = None
        if decoders:
            # The list is the sampler: each pass over the loader serves what it then contains, with the same workers.
            self._loader = DataLoader(
                self._images,
                sampler=self._requests,
                batch_size=None,
                num_workers=decoders,
                persistent_workers=True,
                multiprocessing_context="spawn",
                worker_init_fn=_one_thread,
            )

    def of(self, class_name: str, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        """Yield the images at ``indices`` of a class, in order, as tensors [N <= batch_size, 3, H, W] in [-1, 1]."""
        requests = [(class_name, tuple(indices[start : start + batch_size])) for start in range(0, len(indices), batch_size)]
        self._requests[:] = requests
        for pixels in self._loader or ahead(partial(self._images.__getitem__, request) for request in requests):
            if isinstance(pixels, D3hrError):
                raise pixels
            yield to_unit_range(to_device(pinned(pixels, self._device), self._device))


class _Decoded(Dataset[Tensor | D3hrError]):
    """The pixels of a request, or the error: one that is raised in a worker would arrive as the text of a traceback."""

    def __init__(self, images: ImageData) -> None:
        self._images = images

    def __getitem__(self, request: _Request) -> Tensor | D3hrError:
        try:
            return self._images.pixels(*request).contiguous()
        except D3hrError as error:
            return error


def _one_thread(worker: int) -> None:
    """Let a process that decodes do so in one thread: there are as many of them as the user asked for."""
    os.environ[DECODERS] = "1"
