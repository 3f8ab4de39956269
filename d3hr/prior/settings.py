"""The settings of a fit, declared once: the command line derives its flags from this model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from d3hr.errors import SettingsError, settings_error
from d3hr.prior.presets import FINE_TUNING, PriorPreset, TrainingSettings, prior_preset

Objective = Literal["epsilon", "v", "flow"]
"""What a network learns to predict: noise (DDPM, arXiv 2006.11239), v (arXiv 2202.00512), or the velocity of a flow (arXiv 2210.02747)."""
OBJECTIVE: Objective = "v"
"""What a new network learns by default (docs/decisions.md)."""
_ENDLESS = 10**9
AUTO, OWN = "auto", "own"
"""Words for an autoencoder: whatever suits, or one that is trained."""


class FitSettings(BaseModel):
    """Everything that decides the weights of a fitted prior, given data and pretrained networks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    preset: str = "tiny"
    """networks and training of a fit from scratch: tiny (8 to 32 px, minutes on a CPU), compact (16 to 64 px, an hour on a CPU), small (16
    to 64 px) or base (32 to 256 px, GPU)"""
    init: str | None = None
    """pretrained prior to start from, such as facebook/DiT-XL-2-256"""
    autoencoder: str = AUTO
    """folder or Hub id of an autoencoder to use as it is; own trains one; auto takes madebyollin/taesd where it can be had and keeps what
    is in the images, and else trains one; with --init, auto is the pretrained prior's own"""
    adapt: Literal["full", "lora"] | None = None
    """with --init, train all weights (full), or only the label table and low-rank adapters, which end merged into the weights (lora); by
    default full for a label table and lora for a text-to-image prior"""
    lora_rank: int = Field(default=16, ge=1)
    """rank of the adapters"""
    class_map: dict[str, str] | None = None
    """with --init, the class of the pretrained prior that a class starts as; others start as the class of the same name, or as the null
    class; for a text-to-image prior, the prompt of a class"""
    objective: Objective | None = None
    """what a new transformer learns to predict: v (the default), the noise (epsilon), or the velocity of a flow, at logit-normal times;
    with --init it predicts what the pretrained one does"""
    steps: int | None = Field(default=None, ge=1)
    """optimiser steps of the transformer; by default the preset's, or 10,000 with --init"""
    autoencoder_steps: int | None = Field(default=None, ge=1)
    """optimiser steps of the autoencoder; by default the preset's"""
    batch_size: int | None = Field(default=None, ge=1)
    """images in one step of the transformer, over all processes; by default the preset's, or 64 with --init"""
    learning_rate: float | None = Field(default=None, gt=0)
    """peak learning rate of the transformer; by default the preset's, or 1e-4 with --init"""
    max_minutes: float | None = Field(default=None, gt=0)
    """train for this time instead of the usual steps, a quarter of it the autoencoder if one is trained, or until --steps if given; results
    then depend on the speed of the machine"""
    image_size: int | None = None
    """side in pixels; by default that of the images, to the next multiple of 8 within the preset's range, or the pretrained prior's"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """arithmetic of the networks in training; weights stay float32; auto is bf16 where the GPU or CPU has units for it, on a CPU from
    preset small on, and a stopped fit goes on in its own"""
    gradient_checkpointing: bool = False
    """compute activations twice instead of keeping them, for large transformers on small GPUs"""
    seed: int = Field(default=0, ge=0)
    """seed of weights, order and noise"""

    @model_validator(mode="after")
    def _no_contradiction(self) -> FitSettings:
        if self.init is None and (self.adapt == "lora" or self.class_map is not None):
            raise ValueError("--adapt lora and --class-map need --init, a pretrained prior to start from")
        if self.init is not None and self.autoencoder == OWN:
            raise ValueError("--autoencoder own trains one, and --init brings one")
        if self.autoencoder_steps is not None and not self.trains_autoencoder:
            raise ValueError("--autoencoder-steps is for training an autoencoder, and --init and --autoencoder bring one")
        if self.init is not None and self.objective is not None:
            raise ValueError("--objective is for a new transformer, and that of --init has learned one")
        return self

    @property
    def networks(self) -> PriorPreset:
        """The preset itself."""
        return prior_preset(self.preset)

    @property
    def trains_autoencoder(self) -> bool:
        """Whether there is no autoencoder to start from; with ``auto``, as long as nothing else is decided."""
        return self.init is None and self.autoencoder in (AUTO, OWN)

    @property
    def transformer_training(self) -> TrainingSettings:
        """How the transformer is trained."""
        default = FINE_TUNING if self.init else self.networks.transformer_training
        return self._changed(default, steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate)

    @property
    def autoencoder_training(self) -> TrainingSettings:
        """How the autoencoder is trained, if it is."""
        return self._changed(self.networks.autoencoder_training, steps=self.autoencoder_steps)

    def _changed(self, default: TrainingSettings, *, steps: int | None, **changes: Any) -> TrainingSettings:
        """Return a training with the changes that are not None; one with a time limit has no limit of steps, unless that is given."""
        if steps is None and self.max_minutes is not None:
            steps = _ENDLESS
        return default.model_copy(update={name: value for name, value in {"steps": steps, **changes}.items() if value is not None})


def fit_settings(**options: Any) -> FitSettings:
    """Return the settings of a fit, from values by the names of :class:`FitSettings`; an option of None has its default."""
    try:
        settings = FitSettings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        raise settings_error(error) from None
    prior_preset(settings.preset)
    return settings


def fitting_image_size(settings: FitSettings, image_size: int, factor: int | None = None) -> int:
    """Return the side, in pixels, at which a fit from scratch sees images of ``image_size`` pixels.

    It is that of the settings, or else the next multiple of 8, within the preset's range. Behind an autoencoder that is not trained, and
    makes latents ``factor`` times smaller than images, images may be so many times larger than the preset's largest latents.
    """
    networks = settings.networks
    largest = max(networks.max_image_size, networks.latent_size * (factor or 0))
    if settings.image_size is None:
        return min(max(8 * -(-image_size // 8), networks.min_image_size), largest)
    if not networks.min_image_size <= settings.image_size <= largest:
        raise SettingsError(
            f"Preset {settings.preset!r} does not take this image size.",
            found=f"{settings.image_size} pixels",
            hint=f"use {networks.min_image_size} to {largest} pixels, or another preset.",
        )
    return settings.image_size
