"""The latents of a data set: encoded once, kept on disk in safetensors shards, and read by position from memory-mapped files.

Legend: N images, n images of a batch, C h w latent axes.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.errors import DamagedFile, OutputError
from d3hr.fileio.atomic import load_if_valid, read_json, read_tensors, write_json, write_tensors
from d3hr.fileio.checksums import fingerprint
from d3hr.fileio.locking import LOCK, locked
from d3hr.fileio.staging import require_no_links
from d3hr.prior.autoencoder import to_latents
from d3hr.progress import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

ROWS_PER_SHARD = 4096
"""Latents per shard."""
ROWS_PER_BATCH = 64
"""Images that are encoded at a time."""
_KEY_FILE = "latents.json"


class Latents:
    """Latents [N, C, h, w] of unit scale in the order of an :class:`ImageData`, memory-mapped from ``folder``.

    Shards of the same images and autoencoder that ``folder`` already holds are used again; those of other images or autoencoders are
    replaced, with a message. Several processes share the encoding; while another run encodes into the same folder, this one waits.
    """

    def __init__(self, images: ImageData, vae: Any, folder: Path, process: Accelerator, progress: Progress) -> None:
        key = {
            "images": images.fingerprint,
            "skipped": len(images.skipped),
            "image_size": images.image_size,
            "autoencoder": fingerprint([vae], (vae.config.scaling_factor, vae.config.get("shift_factor"))),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=True) if process.is_main_process else nullcontext():
            if process.is_main_process:
                _claim(folder, key, progress)
            process.wait_for_everyone()
            starts = range(0, len(images), ROWS_PER_SHARD)
            with progress.bar("encoding images", len(images)) as bar:
                for start in starts[process.process_index :: process.num_processes]:
                    stop = min(start + ROWS_PER_SHARD, len(images))
                    if load_if_valid(_shard(folder, start), read_tensors, progress) is None:
                        write_tensors(_shard(folder, start), {"latents": _encode(images, vae, start, stop)})
                    bar.update(stop)
            process.wait_for_everyone()
            self._shards: list[Tensor] = []
            for start in starts:
                with safe_open(_shard(folder, start), framework="pt") as file:
                    self._shards.append(file.get_tensor("latents"))
            process.wait_for_everyone()

    def gather(self, positions: Tensor) -> Tensor:
        """Return the float32 latents [n, C, h, w] at ``positions`` [n]."""
        return torch.stack([self._shards[position // ROWS_PER_SHARD][position % ROWS_PER_SHARD] for position in positions.tolist()])

    def root_mean_square(self) -> float:
        """Return sqrt(mean z^2) over all latents."""
        square = sum(float(shard.double().square().sum()) for shard in self._shards)
        return float((square / sum(shard.numel() for shard in self._shards)) ** 0.5)


def _shard(folder: Path, start: int) -> Path:
    return folder / f"{start:09d}.safetensors"


def _claim(folder: Path, key: dict[str, Any], progress: Progress) -> None:
    """Mark ``folder`` as holding the latents of ``key``; shards of another key are deleted, anything else is refused."""
    require_no_links(folder)
    file = folder / _KEY_FILE
    try:
        stored = read_json(file) if file.is_file() else None
    except DamagedFile:
        stored = {}
    if stored == key:
        return
    if stored is None and any(entry.name != LOCK for entry in folder.iterdir()):
        raise OutputError(
            f"{folder} is no cache of latents.", found=f"files, but no {_KEY_FILE}", hint="give an empty folder as --latent-cache."
        )
    if stored is not None:
        changed = ", ".join(sorted(name for name in key if stored.get(name) != key[name]))
        progress.say(f"the latents in {folder} are of other inputs ({changed}): they are encoded again")
        file.unlink()
        for shard in folder.glob("*.safetensors"):
            shard.unlink()
    write_json(file, key)


@torch.no_grad()
def _encode(images: ImageData, vae: Any, start: int, stop: int) -> Tensor:
    batches = (images.gather(range(at, min(at + ROWS_PER_BATCH, stop)))[0] for at in range(start, stop, ROWS_PER_BATCH))
    return torch.cat([to_latents(vae, batch).cpu() for batch in batches])
