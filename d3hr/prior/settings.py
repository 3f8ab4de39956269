"""The settings of a fit."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from d3hr.errors import SettingsError, settings_error
from d3hr.prior.presets import FINE_TUNING, PriorPreset, TrainingSettings, prior_preset

_ENDLESS = 10**9


class FitSettings(BaseModel):
    """Everything that decides the weights of a fitted prior, beside data and pretrained networks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = "tiny"
    """``tiny``, ``compact``, ``small`` or ``base``: networks and training from scratch; from a pretrained prior it has no part."""
    init: str | None = None
    """Name of the pretrained prior to start from."""
    autoencoder: str | None = None
    """Name of the autoencoder to use as it is, instead of training one or of the pretrained prior's own."""
    adapt: Literal["full", "lora"] = "full"
    """From a pretrained prior: move all weights, or only the label table and low-rank adapters, which end folded into the weights."""
    lora_rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    class_map: dict[str, str] | None = None
    """From a pretrained prior: the class of it that a class begins as. Others begin as the class of the same name, or as the null class."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps of the transformer, instead of the usual number."""
    autoencoder_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps of the autoencoder, instead of the preset's."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images in one step of the transformer, over all processes, instead of the usual number."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the transformer, instead of the usual one."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Train for this time instead of the usual steps, a quarter of it the autoencoder if one is trained, or until ``steps`` if given;
    results then depend on the machine's speed."""
    image_size: int | None = None
    """Side in pixels; by default that of the images, to the next multiple of 8 within the preset's range, or the pretrained prior's."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the networks in training; the weights stay float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them, for large transformers on small GPUs."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, order and noise."""

    @model_validator(mode="after")
    def _no_contradiction(self) -> FitSettings:
        if self.init is None and (self.adapt == "lora" or self.class_map is not None):
            raise ValueError("--adapt lora and --class_map need --init, a pretrained prior to start from")
        if self.autoencoder_steps is not None and not self.trains_autoencoder:
            raise ValueError("--autoencoder_steps is for training an autoencoder, and --init and --autoencoder bring one")
        return self

    @property
    def networks(self) -> PriorPreset:
        """The preset itself."""
        return prior_preset(self.preset)

    @property
    def trains_autoencoder(self) -> bool:
        """Whether there is no autoencoder to start from."""
        return self.init is None and self.autoencoder is None

    @property
    def transformer_training(self) -> TrainingSettings:
        """How the transformer is trained."""
        usual = FINE_TUNING if self.init else self.networks.transformer_training
        return self._changed(usual, steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate)

    @property
    def autoencoder_training(self) -> TrainingSettings:
        """How the autoencoder is trained, if it is."""
        return self._changed(self.networks.autoencoder_training, steps=self.autoencoder_steps)

    def _changed(self, usual: TrainingSettings, *, steps: int | None, **changes: Any) -> TrainingSettings:
        """Return a training with what was asked for; a timed one has no other end than the steps that were given."""
        if steps is None and self.max_minutes is not None:
            steps = _ENDLESS
        given = {name: value for name, value in {"steps": steps, **changes}.items() if value is not None}
        return usual.model_copy(update=given)


def fit_settings(**given: Any) -> FitSettings:
    """Return the settings of a fit; a setting of None is the usual one.

    Raises:
        SettingsError: a setting is unknown, out of range, or contradicts another.
    """
    try:
        settings = FitSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise settings_error(error) from None
    prior_preset(settings.preset)
    return settings


def fitting_image_size(settings: FitSettings, image_size: int) -> int:
    """Return the side, in pixels, that a fit from scratch takes images of ``image_size`` in.

    By default the next multiple of 8 inside the preset's range.

    Raises:
        SettingsError: the size asked for is outside the range.
    """
    networks = settings.networks
    if settings.image_size is None:
        return min(max(8 * -(-image_size // 8), networks.min_image_size), networks.max_image_size)
    if not networks.min_image_size <= settings.image_size <= networks.max_image_size:
        raise SettingsError(
            f"Preset {settings.preset!r} does not take this image size.",
            found=f"{settings.image_size} pixels",
            hint=f"use {networks.min_image_size} to {networks.max_image_size} pixels, or another preset.",
        )
    return settings.image_size
