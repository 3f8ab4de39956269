"""Prepares a copy of a pretrained prior for training on the classes of a data set."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from d3hr.errors import SettingsError
from d3hr.prior.class_matching import match_classes
from d3hr.prior.families.dit import DiT
from d3hr.prior.families.text import TextDenoiser
from d3hr.prior.model import Prior
from d3hr.prior.settings import FitSettings
from d3hr.prior.transformer import add_adapters, replace_classes
from d3hr.seeds import derive_seed, seeded


def pretrained_copy(settings: FitSettings, class_names: Sequence[str], init: Prior, *, of: str) -> tuple[Prior, dict[str, str]]:
    """Return a copy of a pretrained prior for the classes of the data ``of``, with the same autoencoder, and what classes begin as.

    A label table is replaced by one of these classes: they begin as the row of the class of ``init`` that they match, if any, and else as
    the null class. A text-to-image prior is given their prompts.

    Raises:
        SettingsError: another image size than the prior's, or a prior of a family that cannot be trained.
        ClassMismatch: a class could be several of the prior's; or the class map does not fit the classes.
    """
    if settings.image_size not in (None, init.image_size):
        raise SettingsError(
            "The pretrained prior does not take this image size.",
            found=f"--image-size {settings.image_size}, the prior's {init.image_size}",
            hint="leave --image-size out: images are resized to the prior's size.",
        )
    network = copy.deepcopy(init.network).float()
    if isinstance(init.denoiser, TextDenoiser):
        prompts = init.denoiser.match(class_names, of=of, class_map=settings.class_map)
        began_as = {match.class_name: match.prior_class for match in prompts}
        prior = Prior(init.denoiser.around(network), init.vae, init.scheduler_config, licence=init.licence)
    elif isinstance(init.denoiser, DiT):  # or a SiT, which is one
        matches = match_classes(class_names, init.class_names, of=of, class_map=settings.class_map, allow_missing=True)
        began_as = {match.class_name: match.prior_class for match in matches}
        rows = {match.class_name: match.conditioning_id for match in matches}
        replace_classes(network, [rows.get(name) for name in class_names])
        prior = Prior(type(init.denoiser)(network, class_names), init.vae, init.scheduler_config, licence=init.licence)
    else:
        raise SettingsError(
            "A prior of this family cannot be trained further.",
            found=type(init.denoiser).__name__,
            hint="give --init a DiT or SiT with a label table, or a text-to-image prior.",
        )
    network.requires_grad_(True)
    if settings.adapt == "lora":
        with seeded(derive_seed(settings.seed, "lora")):
            add_adapters(network, settings.lora_rank)
    return prior, began_as
