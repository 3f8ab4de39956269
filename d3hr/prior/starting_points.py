"""The networks that a fit starts from: untrained ones, untrained ones behind a given autoencoder, or those of a pretrained prior."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from d3hr.errors import SettingsError
from d3hr.prior.autoencoder import downsampling
from d3hr.prior.conditioning import match_classes
from d3hr.prior.finetuning import add_lora, replace_classes
from d3hr.prior.model import Prior
from d3hr.prior.networks import SCHEDULER_CONFIG, new_autoencoder, new_transformer
from d3hr.prior.settings import FitSettings, fitting_image_size
from d3hr.seeds import derive_seed


@dataclass(frozen=True)
class StartingPoint:
    """Networks for the classes of a data set, before training.

    Attributes:
        transformer: diffusers ``DiTTransformer2DModel`` whose parameters to be trained need a gradient.
        vae: the autoencoder.
        image_size: side, in pixels, of the images it takes.
        scheduler_config: configuration of the noise schedule.
        began_as: class -> class of the pretrained prior whose row of the label table it begins with.
        licence: licence of the pretrained weights.
    """

    transformer: Any
    vae: Any
    image_size: int
    scheduler_config: Mapping[str, Any]
    began_as: dict[str, str] = field(default_factory=dict)
    licence: str | None = None


def untrained(settings: FitSettings, class_names: Sequence[str], image_size: int, vae: Any | None) -> StartingPoint:
    """Return untrained networks of the settings' preset, behind ``vae`` if there is one.

    Raises:
        SettingsError: the image size is out of range or cannot be halved often enough.
    """
    size = fitting_image_size(settings, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(settings.seed, "weights"))
        autoencoder = vae or new_autoencoder(settings.networks, size)
        factor = downsampling(autoencoder)
        if size % factor:
            raise SettingsError(
                "The autoencoder cannot take this image size.",
                found=f"{size} pixels",
                do=f"give an --image_size that is a multiple of {factor}.",
            )
        transformer = new_transformer(settings.networks, (autoencoder.config.latent_channels, size // factor), len(class_names))
    return StartingPoint(transformer, autoencoder, size, SCHEDULER_CONFIG)


def pretrained(settings: FitSettings, class_names: Sequence[str], init: Prior, *, of: str) -> StartingPoint:
    """Return a copy of a pretrained prior's transformer, with a label table for other classes, behind the prior's autoencoder.

    Raises:
        SettingsError: an image size that is not the prior's.
        ClassMismatch: a class may be several of the prior's, or the class map names what is none.
    """
    if settings.image_size not in (None, init.image_size):
        raise SettingsError(
            "The pretrained prior does not take this image size.",
            found=f"--image_size {settings.image_size}, the prior's {init.image_size}",
            do="leave --image_size out: images are brought to the prior's size.",
        )
    matches = match_classes(class_names, init.class_names, of=of, class_map=settings.class_map, allow_missing=True)
    rows = {match.class_name: match.conditioning_id for match in matches}
    transformer = copy.deepcopy(init.transformer).float().requires_grad_(True)
    replace_classes(transformer, [rows.get(name) for name in class_names])
    if settings.adapt == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "lora"))
            add_lora(transformer, settings.lora_rank)
    began_as = {match.class_name: match.prior_class for match in matches}
    return StartingPoint(transformer, init.vae, init.image_size, init.scheduler_config, began_as, init.licence)
