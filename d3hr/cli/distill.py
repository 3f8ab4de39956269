"""``d3hr distill``: a data set into a few images per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from d3hr.cli.options import LOADING, READING, RUNNING, Loading, Reading, Running
from d3hr.cli.output import Result
from d3hr.progress import OnTerminal

if TYPE_CHECKING:
    from d3hr.sets.manifest import Manifest


def distill(
    data: str,
    *,
    prior: str,
    out: str,
    ipc: int = 10,
    preset: str = "paper",
    store: Literal["images", "statistics"] = "images",
    statistics_dtype: Literal["float32", "float16"] | None = None,
    split: str | None = None,
    steps: int | None = None,
    level: int | Literal["auto"] | None = None,
    statistics_level: int | None = None,
    denoising_level: int | None = None,
    inversion_guidance: float | None = None,
    denoising_guidance: float | None = None,
    solver: Literal["ddim", "fixed_point", "multistep"] | None = None,
    inversion_stride: int | None = None,
    strategy: Literal["search", "exact", "stratified", "random"] | None = None,
    num_candidates: int | None = None,
    weights: tuple[float, float, float] | None = None,
    skewness: Literal["per_dimension", "per_image"] | None = None,
    exact_std: Literal["unbiased", "population"] | None = None,
    temperature: float | None = None,
    batch_size: int | Literal["auto"] | None = None,
    max_images_per_class: int | None = None,
    tolerance: float | None = None,
    modes: int | None = None,
    rank: int | None = None,
    decoders: int | None = None,
    seed: int = 0,
    loading: Loading = LOADING,
    reading: Reading = READING,
    running: Running = RUNNING,
) -> Result:
    """Distil a data set into a few images per class. Settings left out are the preset's.

    Args:
        data: folder of class folders, folder of parquet files, Hub id, or digits
        prior: folder or Hub id of a diffusion prior that knows the classes by name
        out: folder to write the distilled set to
        ipc: images per class
        preset: paper, fast (a fifth of its calls in inversion), released, mixture (five Gaussians a class), or gentle (for weak priors)
        store: images with the statistics beside them, or the statistics alone, for expand
        statistics_dtype: precision of the statistics on disk
        split: train, validation, test, ...; train by default
        steps: points of the sampling grid
        level: level of statistics and of denoising, both; auto measures normality on a sample and says why
        statistics_level: level at which the class statistics are taken
        denoising_level: level from which groups are denoised
        inversion_guidance: guidance scale of inversion
        denoising_guidance: guidance scale of denoising
        solver: ddim, multistep (second order) or fixed_point (the exact inverse of denoising)
        inversion_stride: levels from one network call of inversion to the next
        strategy: search (best of many random groups), exact (standardised to the moments), stratified (a latent from each part) or random
        num_candidates: candidate groups of a search
        weights: weights of the mean, std and skewness terms
        skewness: per_dimension (paper) or per_image (released code)
        exact_std: which standard deviation an exact group has
        temperature: factor on the spread with which groups are drawn; below 1 images are more typical
        batch_size: images in one network call; auto measures which size makes the most images a second
        max_images_per_class: take the statistics from so many images of a class at most, drawn at random; their standard error is told
        modes: Gaussians that describe a class, one for each cluster of its images; 1 is the paper's
        rank: directions that each Gaussian keeps of its covariance; 0 is the paper's independent dimensions
        tolerance: stop a class when the standard error of its mean and spread is below this share of sigma, such as 0.02
        decoders: processes that read and decode images ahead, for each worker; by default none on a CPU, up to 8 beside a GPU
        seed: seed of the group draws
        loading: how the prior is loaded
        reading: how images are read
        running: where the work runs
    """
    from d3hr.distillation.settings import distill_settings
    from d3hr.pipeline import distill as distill_images

    changes: dict[str, Any] = {
        "steps": steps,
        "statistics_level": statistics_level,
        "denoising_level": denoising_level,
        "inversion_guidance": inversion_guidance,
        "denoising_guidance": denoising_guidance,
        "solver": solver,
        "inversion_stride": inversion_stride,
        "strategy": strategy,
        "num_candidates": num_candidates,
        "weights": weights,
        "skewness": skewness,
        "exact_std": exact_std,
        "temperature": temperature,
        "statistics_dtype": statistics_dtype,
        "max_images_per_class": max_images_per_class,
        "tolerance": tolerance,
        "modes": modes,
        "rank": rank,
    }
    size = None if batch_size == "auto" else batch_size
    distill_settings(preset, level=level, ipc=ipc, seed=seed, batch_size=size, **changes)  # complains before any image is read
    execution, memory = running.chosen(), running.budget()
    named = loading.classes()
    progress = OnTerminal()
    loaded = loading.load(prior, progress)
    images = reading.load(data, split, progress)
    distilled = distill_images(
        images,
        loaded,
        out,
        ipc=ipc,
        preset=preset,
        level=level,
        batch_size=batch_size,
        store=store,
        class_map=named,
        seed=seed,
        execution=execution,
        decoders=_decoders(loaded.device.type) if decoders is None else decoders,
        memory_budget=memory,
        progress=progress,
        **changes,
    )
    if store == "images":
        text = (
            f"{ipc} image(s) of each of {len(distilled.class_names)} classes in {out} (look at {out}/contact-sheet.png).\n"
            f"Next: d3hr evaluate {out} --test DATA --test_split test"
        )
    else:
        text = f"Statistics of {len(distilled.class_names)} classes in {out}.\nNext: d3hr expand {out} --ipc {ipc} --out SET"
    manifest = distilled.manifest
    text += _told_of_samples(manifest)
    values = {
        "out": out,
        "ipc": manifest.ipc,
        "classes": list(distilled.class_names),
        "settings": manifest.settings,
        "storage": manifest.storage,
    }
    return Result(text, values, Path(out))


def _told_of_samples(manifest: Manifest) -> str:
    """Return a line on statistics that come from a part of the images; nothing where they come from all."""
    samples = [entry.sample for entry in manifest.classes if entry.sample]
    if not samples:
        return ""
    errors = (
        f"{max(sample.mean_error for sample in samples):.3f} sigma (mean), {max(sample.std_error for sample in samples):.3f} sigma (spread)"
    )
    return f"\nStatistics come from {sum(sample.images for sample in samples):,} images; largest standard error {errors}."


def _decoders(device: str) -> int:
    """Return how many processes decode by default: on a CPU they would take the cores that the networks need."""
    return 0 if device == "cpu" else min(8, max(1, (os.cpu_count() or 1) - 1))
