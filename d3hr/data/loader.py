"""Reads and decodes batches of real images before they are needed, in worker processes that live as long as the loader.

Legend: N images, H = W image size in pixels.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from d3hr.data.codec import to_unit_range
from d3hr.data.dataset import ImageData
from d3hr.errors import D3hrError, require_at_least

_Request = tuple[str, tuple[int, ...]]


class Batches:
    """Batches of the images of a data set, decoded by ``decoders`` worker processes; by this one, when they are needed, if there are none.

    A program that starts some must guard its main module (``if __name__ == "__main__"``), as Python's ``multiprocessing`` requires.
    """

    def __init__(self, images: ImageData, decoders: int = 0) -> None:
        require_at_least("--decoders", decoders, 0)
        self._requests: list[_Request] = []
        # The list is the sampler: each pass over the loader serves what it then contains, with the same workers.
        self._loader = DataLoader(
            _Decoded(images),
            sampler=self._requests,
            batch_size=None,
            num_workers=decoders,
            persistent_workers=decoders > 0,
            multiprocessing_context="spawn" if decoders else None,
        )

    def of(self, class_name: str, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        """Yield the images at ``indices`` of a class, in order, as tensors [N <= batch_size, 3, H, W] in [-1, 1]."""
        self._requests[:] = [(class_name, tuple(indices[start : start + batch_size])) for start in range(0, len(indices), batch_size)]
        for pixels in self._loader:
            if isinstance(pixels, D3hrError):
                raise pixels
            yield to_unit_range(pixels)


class _Decoded(Dataset[Tensor | D3hrError]):
    """The pixels of a request, or the error: one that is raised in a worker would arrive as the text of a traceback."""

    def __init__(self, images: ImageData) -> None:
        self._images = images

    def __getitem__(self, request: _Request) -> Tensor | D3hrError:
        try:
            return self._images.pixels(*request).contiguous()
        except D3hrError as error:
            return error
