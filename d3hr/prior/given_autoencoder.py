"""The autoencoder of a fit from scratch: the one that is named, or a small pretrained one where that can be had and suits the images, or
none, so that one is trained.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from d3hr.data.dataset import ImageData
from d3hr.data.hub import unreachable, within
from d3hr.errors import PriorError
from d3hr.fileio.staging import kept_key
from d3hr.formatting import time_in_words
from d3hr.prior.autoencoder import psnr_db, to_images, to_latents
from d3hr.prior.networks import default_device
from d3hr.prior.presets import AUTOENCODER_SHARE
from d3hr.prior.repository import Repository, load_autoencoder
from d3hr.prior.settings import AUTO, OWN, FitSettings, fitting_image_size
from d3hr.progress import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

PRETRAINED, CLASS, FACTOR = "madebyollin/taesd", "AutoencoderTiny", 8
"""The pretrained autoencoder, its class in diffusers, and the side of an image over that of its latent (MIT, 10 MB, 4 channels)."""
WEIGHTS = "diffusion_pytorch_model*.safetensors"
"""Its file of weights, next to others that are not needed."""
LEAST_LATENT = 8
"""Side of the smallest latents for which it is tried: smaller images lose more in it than in one of their own (docs/decisions.md)."""
LEAST_DB = 20.0
"""PSNR on a sample of the images, below which one is trained: pictures of less are blurs (``weak prior`` of the diagnosis)."""
SAMPLE = 64
"""Images of that sample."""
BATCH = 16
"""Images of it that are encoded at a time."""
ANSWER_SECONDS, DOWNLOAD_SECONDS = 5, 60
"""How long the Hub may take to answer, and to give the files."""


@dataclass(frozen=True)
class GivenAutoencoder:
    """What a fit begins with.

    Attributes:
        name: folder or Hub id, or ``own``.
        vae: the autoencoder, in float32; None where one is trained.
        reason: why it was chosen; None where it was asked for by name.
    """

    name: str
    vae: Any | None = None
    reason: str | None = None


def autoencoder_of(settings: FitSettings, images: ImageData, out: str | Path, process: Accelerator, progress: Progress) -> GivenAutoencoder:
    """Return the autoencoder of a fit from scratch.

    With ``auto``, the run that ``out`` holds, finished or stopped, has decided; else the first of several processes decides now.

    Raises:
        PriorError: the autoencoder that is named, or that a stopped run began with, cannot be loaded.
        SettingsError: the preset does not take the image size.
    """
    if settings.autoencoder == OWN:
        return GivenAutoencoder(OWN)
    if settings.autoencoder != AUTO:
        return GivenAutoencoder(settings.autoencoder, load_autoencoder(Repository(settings.autoencoder), torch.float32))
    from accelerate.utils import broadcast_object_list

    decided = [(*_decided(settings, images, out),)] if process.is_main_process else [("", "")]
    name, reason = broadcast_object_list(decided)[0]
    progress.say(f"autoencoder: {f'{name}, pretrained' if name == PRETRAINED else 'one of its own'} ({reason})")
    return GivenAutoencoder(name, _pretrained_again(out) if name == PRETRAINED else None, reason)


def _decided(settings: FitSettings, images: ImageData, out: str | Path) -> tuple[str, str]:
    """Return which autoencoder ``auto`` stands for, and why."""
    before = kept_key(out).get("pretrained")
    if before is not None and "init" not in before:
        return PRETRAINED if "autoencoder" in before else OWN, "as when this run began"
    if settings.autoencoder_steps is not None:
        return OWN, "--autoencoder-steps is given"
    side = fitting_image_size(settings, images.image_size, FACTOR)
    if side % FACTOR:
        return OWN, f"{PRETRAINED} takes multiples of {FACTOR} px"
    if side < FACTOR * LEAST_LATENT:
        return OWN, f"images of {side} px are too small for {PRETRAINED}"
    try:
        folder = _cached() or _downloaded()
    except PriorError as error:
        return OWN, f"{PRETRAINED} cannot be had: {error.found}"
    found, seconds = _tried(_loaded(folder), images, side)
    quality = f"{found:.1f} dB on {min(SAMPLE, len(images))} of these images"
    if found < LEAST_DB:
        return OWN, f"{PRETRAINED} has only {quality}"
    if settings.max_minutes is not None and seconds > AUTOENCODER_SHARE * 60 * settings.max_minutes:
        return OWN, f"{PRETRAINED} would need {time_in_words(seconds)} to encode the images"
    return PRETRAINED, quality


def _pretrained_again(out: str | Path) -> Any:
    """Return the pretrained autoencoder, for a run that has decided to take it."""
    try:
        return _loaded(_cached() or _downloaded())
    except PriorError as error:
        raise PriorError(
            f"{out} begins with the pretrained autoencoder {PRETRAINED}, which cannot be had now.",
            found=error.found,
            hint="connect to the Hub, bring its cache back, or choose another --out.",
        ) from error


def _cached() -> Path | None:
    """Return the folder in which the Hub's cache holds the whole pretrained autoencoder; None where it does not. Asks no network."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(PRETRAINED, allow_patterns=["config.json", WEIGHTS], local_files_only=True))
    except Exception:  # the Hub client raises from many unrelated trees
        return None
    needed = [folder / "config.json", *folder.glob(WEIGHTS)]
    return folder if len(needed) > 1 and all(file.is_file() for file in needed) else None


def _downloaded() -> Path:
    """Return the folder of the pretrained autoencoder after a download; a Hub that is too slow or out of reach is a ``PriorError``."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise PriorError(f"{PRETRAINED} is not here.", found="HF_HUB_OFFLINE is set, and the Hub's cache does not hold it")
    if why := unreachable(PRETRAINED, kind="model", seconds=ANSWER_SECONDS):
        raise PriorError(f"{PRETRAINED} is not here.", found=f"the Hub is out of reach ({why.splitlines()[0]})")

    def fetched() -> Path:
        repository = Repository(PRETRAINED)
        repository.fetch(".")
        return repository.folder

    try:
        return within(DOWNLOAD_SECONDS, fetched)
    except TimeoutError as error:
        raise PriorError(f"{PRETRAINED} is not here.", found=f"the download took more than {DOWNLOAD_SECONDS} seconds") from error


def _loaded(folder: Path) -> Any:
    """Return the pretrained autoencoder in a folder of the Hub's cache; one that is damaged, or another, is refused with a way out."""
    try:
        vae = load_autoencoder(Repository(str(folder)), torch.float32)
        found = "" if type(vae).__name__ == CLASS else f"class {type(vae).__name__}, not {CLASS}"
    except PriorError as error:
        found = error.found
    if found:
        raise PriorError(
            f"What the Hub's cache holds as {PRETRAINED} cannot be used.",
            found=found,
            hint=f"delete {folder.parent.parent}, so that it is downloaded again, or give --autoencoder {OWN}.",
        )
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def _tried(vae: Any, images: ImageData, side: int) -> tuple[float, float]:
    """Return the PSNR, in dB, of an autoencoder on evenly spaced images at a side of so many pixels, and the seconds to encode them all."""
    positions = torch.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().long()
    x = images.at_size(side).gather(positions)[0]
    vae.to(default_device())
    to_latents(vae, x[:1])  # the first call is slower
    began = time.monotonic()
    latents = [to_latents(vae, part) for part in x.split(BATCH)]
    seconds = (time.monotonic() - began) / len(x) * len(images)
    return psnr_db(x, torch.cat([to_images(vae, part).cpu() for part in latents])), seconds
