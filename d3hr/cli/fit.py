"""``d3hr fit``: a diffusion prior of one's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from d3hr.cli.options import READING, Reading, say_licence
from d3hr.cli.output import Result
from d3hr.progress import OnTerminal


def fit(
    data: str,
    *,
    out: str,
    preset: str = "tiny",
    init: str | None = None,
    autoencoder: str | None = None,
    adapt: Literal["full", "lora"] = "full",
    lora_rank: int = 16,
    class_map: str | None = None,
    split: str | None = None,
    steps: int | None = None,
    autoencoder_steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    max_minutes: float | None = None,
    image_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    gradient_checkpointing: bool = False,
    latent_cache: str | None = None,
    seed: int = 0,
    reading: Reading = READING,
) -> Result:
    """Fit a diffusion prior to your images: from scratch, or from a pretrained prior (--init).

    Args:
        data: folder of class folders, folder of parquet files, Hub id, or digits
        out: folder to write the prior to (a diffusers DiTPipeline)
        preset: tiny (8 to 32 px, minutes on a CPU), compact (16 to 64 px, an hour on a CPU), small (16 to 64 px), base (32 to 256 px, GPU)
        init: pretrained prior to start from, such as facebook/DiT-XL-2-256
        autoencoder: folder or Hub id of an autoencoder to use as it is
        adapt: with --init, move all weights (full) or low-rank adapters and the label table only (lora)
        lora_rank: rank of the adapters
        class_map: with --init, YAML file of lines "class: class of the pretrained prior to begin as"
        split: train, validation, test, ...; train by default
        steps: optimiser steps of the transformer
        autoencoder_steps: optimiser steps of the autoencoder
        batch_size: images in one step of the transformer, over all processes
        learning_rate: peak learning rate of the transformer
        max_minutes: train for this time instead of the usual steps
        image_size: side in pixels; by default that of the images, to the next multiple of 8, or the pretrained prior's
        precision: arithmetic of the networks
        gradient_checkpointing: spend time to save memory, for large transformers
        latent_cache: folder that keeps the encoded images for other fits
        seed: seed of weights, order and noise
        reading: how images are read
    """
    from d3hr.prior.class_matching import read_class_map
    from d3hr.prior.fit import fit_prior
    from d3hr.prior.model import Prior
    from d3hr.prior.settings import fit_settings

    settings: dict[str, Any] = {
        "preset": preset,
        "adapt": adapt,
        "lora_rank": lora_rank,
        "class_map": read_class_map(class_map) if class_map else None,
        "steps": steps,
        "autoencoder_steps": autoencoder_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_minutes": max_minutes,
        "image_size": image_size,
        "precision": precision,
        "gradient_checkpointing": gradient_checkpointing,
        "seed": seed,
    }
    fit_settings(init=init, autoencoder=autoencoder, **settings)  # complains before any image is read
    progress = OnTerminal()
    base = Prior.from_pretrained(init, device="cpu", autoencoder=autoencoder) if init else None
    if base:
        say_licence(base, progress)
    images = reading.load(data, split, progress)
    prior = fit_prior(
        images, out, init=base, autoencoder=None if base else autoencoder, latent_cache=latent_cache, progress=progress, **settings
    )
    text = (
        f"Prior of {len(prior.class_names)} classes at {prior.image_size} px in {out} (loss curve: {out}/loss.csv).\n"
        f"Next: d3hr distill {data} --prior {out} --out SET"
    )
    values = {"out": out, "classes": list(prior.class_names), "image_size": prior.image_size, "fingerprint": prior.fingerprint}
    return Result(text, values, Path(out))
