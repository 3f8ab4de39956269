"""Presets of a prior that is fitted from scratch: its networks and their training, as data.

The widths of ``tiny`` were measured on 2 CPU cores (fp32, batch 64): ``AutoencoderKL`` with widths (32, 64) at 8 px trains 2,200
images/s, (16, 32, 64) at 32 px 400 images/s, (32, 64, 64) at 32 px 170 images/s: the blocks at full resolution cost the most, so the
first width stays small. A transformer of 4 layers, width 96, 16 tokens trains 2,100 images/s (bf16 autocast: 1,300, so fp32).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from d3hr.errors import SettingsError


class TrainingSettings(BaseModel):
    """Training of one network of a prior: AdamW, linear warm-up, cosine to zero, gradient norm clipped, weights averaged (EMA)."""

    model_config = ConfigDict(frozen=True)

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    """Images per step, over all processes."""
    learning_rate: float = Field(gt=0)
    warmup_steps: int = 100
    clip_norm: float = 1.0
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the averaged weights, which grows to this value over the first steps."""


class PriorPreset(BaseModel):
    """Networks and training of a prior."""

    model_config = ConfigDict(frozen=True)

    min_image_size: int
    max_image_size: int
    """Range of image sides, in pixels, that the preset is meant for."""
    latent_channels: int
    latent_size: int
    """Largest latent side: the autoencoder halves the image until it fits."""
    autoencoder: Literal["AutoencoderKL", "AutoencoderDC"] = Field(default="AutoencoderKL", exclude_if=lambda kind: kind == "AutoencoderKL")
    """diffusers' class. ``AutoencoderDC`` (arXiv 2410.10733) folds pixels into channels and works at low resolution: several times as
    fast on a CPU."""
    autoencoder_widths: tuple[int, ...]
    """Channels of the autoencoder at each resolution, or of an ``AutoencoderDC`` at each below full resolution; the last is repeated where
    more halvings are needed."""
    autoencoder_layers: int
    """Residual blocks at each resolution; of an ``AutoencoderDC`` at the lowest resolution, with one block at those in between."""
    kl_weight: float = 1e-6
    """Weight of the KL term next to the mean absolute and mean squared error."""
    layers: int
    heads: int
    width: int
    """Blocks, attention heads and width of the transformer."""
    tokens: int
    """Largest number of tokens; the patch size follows from it."""
    autoencoder_training: TrainingSettings
    transformer_training: TrainingSettings


PRESETS: dict[str, PriorPreset] = {
    "tiny": PriorPreset(
        min_image_size=8,
        max_image_size=32,
        latent_channels=4,
        latent_size=8,
        autoencoder_widths=(32, 64),
        autoencoder_layers=1,
        layers=4,
        heads=4,
        width=96,
        tokens=16,
        autoencoder_training=TrainingSettings(steps=800, batch_size=64, learning_rate=2e-3),
        transformer_training=TrainingSettings(steps=1500, batch_size=128, learning_rate=2e-3),
    ),
    "compact": PriorPreset(
        min_image_size=16,
        max_image_size=64,
        latent_channels=8,
        latent_size=8,
        autoencoder="AutoencoderDC",
        autoencoder_widths=(32, 64),
        autoencoder_layers=2,
        layers=6,
        heads=4,
        width=128,
        tokens=16,
        autoencoder_training=TrainingSettings(steps=20_000, batch_size=32, learning_rate=4e-3, warmup_steps=200),
        transformer_training=TrainingSettings(steps=20_000, batch_size=128, learning_rate=1e-3, warmup_steps=500),
    ),
    "small": PriorPreset(
        min_image_size=16,
        max_image_size=64,
        latent_channels=4,
        latent_size=16,
        autoencoder_widths=(32, 64, 128),
        autoencoder_layers=1,
        layers=8,
        heads=8,
        width=256,
        tokens=64,
        autoencoder_training=TrainingSettings(steps=20_000, batch_size=128, learning_rate=1e-3, warmup_steps=500),
        transformer_training=TrainingSettings(steps=100_000, batch_size=256, learning_rate=5e-4, warmup_steps=1000, ema_decay=0.9995),
    ),
    "base": PriorPreset(
        min_image_size=32,
        max_image_size=256,
        latent_channels=4,
        latent_size=32,
        autoencoder_widths=(64, 128, 256),
        autoencoder_layers=2,
        layers=12,
        heads=12,
        width=768,
        tokens=256,
        autoencoder_training=TrainingSettings(steps=100_000, batch_size=64, learning_rate=2e-4, warmup_steps=1000),
        transformer_training=TrainingSettings(steps=400_000, batch_size=256, learning_rate=1e-4, warmup_steps=2000, ema_decay=0.9999),
    ),
}


FINE_TUNING = TrainingSettings(steps=10_000, batch_size=64, learning_rate=1e-4, warmup_steps=100, ema_decay=0.999)
"""How a pretrained transformer is trained on other classes, by default."""
AUTOENCODER_SHARE = 0.25
"""Share of the time of a fit for the autoencoder: its training, or the encoding of the images by a pretrained one."""
LABEL_DROPOUT = 0.1
"""Share of training images whose class is replaced by the null class, for guidance (DiT, arXiv 2212.09748)."""


def prior_preset(name: str) -> PriorPreset:
    """Return the preset of a name; none of that name is a ``SettingsError``."""
    if name not in PRESETS:
        raise SettingsError("Unknown prior preset.", found=repr(name), hint=f"use one of: {', '.join(PRESETS)}.")
    return PRESETS[name]
