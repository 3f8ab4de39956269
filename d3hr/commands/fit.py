"""``d3hr fit``: a diffusion prior of one's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from d3hr.commands.reading import BadImage, Reading
from d3hr.commands.result import Result
from d3hr.progress import OnTerminal


def fit(
    data: str,
    *,
    out: str,
    preset: str = "tiny",
    split: str | None = None,
    steps: int | None = None,
    autoencoder_steps: int | None = None,
    max_minutes: float | None = None,
    image_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Result:
    """Fit a diffusion prior to your images: an autoencoder, then a class-conditional diffusion transformer.

    Args:
        data: folder of class folders, folder of parquet files, Hub id, or digits
        out: folder to write the prior to (a diffusers DiTPipeline)
        preset: tiny (8 to 32 px, minutes on a CPU), small (16 to 64 px), base (32 to 256 px, GPU)
        split: train, validation, test, ...; train by default
        steps: optimiser steps of the transformer
        autoencoder_steps: optimiser steps of the autoencoder
        max_minutes: train for this time instead of the preset's steps
        image_size: side in pixels; by default that of the images, to the next multiple of 8
        precision: arithmetic of the networks
        seed: seed of weights, order and noise
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
    """
    from d3hr.prior.training import fit_prior

    progress = OnTerminal()
    images = Reading(on_bad_image, image_column, label_column, progress).load(data, split)
    prior = fit_prior(
        images,
        out,
        preset=preset,
        steps=steps,
        autoencoder_steps=autoencoder_steps,
        max_minutes=max_minutes,
        image_size=image_size,
        precision=precision,
        seed=seed,
        progress=progress,
    )
    text = (
        f"Prior of {len(prior.class_names)} classes at {prior.image_size} px in {out} (loss curve: {out}/loss.csv).\n"
        f"Next: d3hr distill {data} --prior {out} --out SET"
    )
    values = {"out": out, "classes": list(prior.class_names), "image_size": prior.image_size, "fingerprint": prior.fingerprint}
    return Result(text, values, Path(out))
