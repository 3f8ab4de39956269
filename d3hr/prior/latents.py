"""The latents of a data set, encoded once, kept on disk in safetensors shards and read by position without holding them in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from d3hr.data import ImageData
from d3hr.progress import Progress
from d3hr.staging import write_tensors

_ROWS = 4096
_BATCH = 64


class Latents:
    """Latents [N, C, h, w] in the order of an :class:`ImageData`, memory-mapped from ``folder``.

    Args:
        images: the data set.
        encode: gives latents of images in [-1, 1].
        folder: where the shards are, or are written if missing.
        progress: where to report.
    """

    def __init__(self, images: ImageData, encode: Callable[[Tensor], Tensor], folder: Path, progress: Progress) -> None:
        folder.mkdir(exist_ok=True)
        self._shards: list[Tensor] = []
        with progress.bar("encoding images", len(images)) as bar:
            for start in range(0, len(images), _ROWS):
                path = folder / f"{start:09d}.safetensors"
                stop = min(start + _ROWS, len(images))
                if not path.exists():
                    parts = [encode(images.gather(range(at, min(at + _BATCH, stop)))[0]).cpu() for at in range(start, stop, _BATCH)]
                    write_tensors(path, {"latents": torch.cat(parts)})
                with safe_open(path, framework="pt") as file:
                    self._shards.append(file.get_tensor("latents"))
                bar.update(stop)

    def gather(self, positions: Tensor) -> Tensor:
        """Return the float32 latents [n, C, h, w] at ``positions`` [n]."""
        return torch.stack([self._shards[position // _ROWS][position % _ROWS] for position in positions.tolist()])

    def root_mean_square(self) -> float:
        """Return sqrt(mean z^2) over all latents."""
        square = sum(float(shard.double().square().sum()) for shard in self._shards)
        return float((square / sum(shard.numel() for shard in self._shards)) ** 0.5)
