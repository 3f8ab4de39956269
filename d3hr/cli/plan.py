"""``d3hr plan``: what a distillation will cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from d3hr.cli.options import LOADING, READING, Loading, Precision, Reading
from d3hr.cli.output import Result
from d3hr.errors import SettingsError
from d3hr.progress import OnTerminal


def plan(
    data: str,
    *,
    prior: str | None = None,
    ipc: int = 10,
    preset: str = "paper",
    class_map: str | None = None,
    autoencoder: str | None = None,
    precision: Precision = "fp32",
    store: Literal["images", "statistics"] = "images",
    split: str | None = None,
    steps: int | None = None,
    level: int | None = None,
    statistics_level: int | None = None,
    denoising_level: int | None = None,
    inversion_guidance: float | None = None,
    denoising_guidance: float | None = None,
    solver: Literal["ddim", "fixed_point", "multistep"] | None = None,
    inversion_stride: int | None = None,
    strategy: Literal["search", "exact", "stratified", "random"] | None = None,
    num_candidates: int | None = None,
    batch_size: int | None = None,
    max_images_per_class: int | None = None,
    tolerance: float | None = None,
    modes: int | None = None,
    rank: int | None = None,
    student: str = "convnet3",
    protocol: str = "hard",
    test_images: int = 0,
    evaluation_runs: int = 3,
    devices: int = 1,
    reading: Reading = READING,
) -> Result:
    """Say what distilling and evaluating will cost, in time and memory, before anything runs. Settings left out are the preset's.

    Args:
        data: folder of class folders, folder of parquet files, Hub id, digits, or a recipe file (.yaml), whose settings then hold
        prior: folder or Hub id of a prior, for a recipe by default its own; facebook/DiT-XL-2-256 and -512 are planned from their shape
        ipc: images per class
        preset: paper, fast (a fifth of its calls in inversion), released, mixture (five Gaussians a class), or gentle (for weak priors)
        class_map: YAML file of lines "class: class of the prior", for classes whose names do not match
        autoencoder: folder or Hub id of an autoencoder to use instead of the prior's own
        precision: arithmetic of the networks
        store: images with the statistics beside them, or the statistics alone
        split: train, validation, test, ...; train by default
        steps: points of the sampling grid
        level: level of statistics and of denoising, both
        statistics_level: level at which the class statistics are taken
        denoising_level: level from which groups are denoised
        inversion_guidance: guidance scale of inversion
        denoising_guidance: guidance scale of denoising
        solver: ddim, multistep (second order) or fixed_point (the exact inverse of denoising)
        inversion_stride: levels from one network call of inversion to the next
        strategy: search (best of many random groups), exact (standardised to the moments), stratified (a latent from each part) or random
        num_candidates: candidate groups of a search
        batch_size: images in one network call
        max_images_per_class: take the statistics from so many images of a class at most
        tolerance: take them from as many images as bring their standard error below this share of sigma
        modes: Gaussians that describe a class
        rank: directions that each Gaussian keeps of its covariance
        student: network to evaluate with
        protocol: hard (1,000 steps), quick (200 steps) or paper-hard (the paper's, 1,000 to 2,000 epochs)
        test_images: how many real images students are tested on
        evaluation_runs: students to train
        devices: such devices to share the classes out over
        reading: how images are read
    """
    from d3hr.distillation.settings import distill_settings
    from d3hr.evaluation.protocols import require_protocol
    from d3hr.planning.plan import plan as plan_distillation
    from d3hr.planning.shapes import SHAPES, PriorShape
    from d3hr.prior.class_matching import read_class_map
    from d3hr.prior.model import PRECISIONS, Prior

    changes: dict[str, Any] = {
        "steps": steps,
        "level": level,
        "statistics_level": statistics_level,
        "denoising_level": denoising_level,
        "inversion_guidance": inversion_guidance,
        "denoising_guidance": denoising_guidance,
        "solver": solver,
        "inversion_stride": inversion_stride,
        "strategy": strategy,
        "num_candidates": num_candidates,
        "batch_size": batch_size,
        "max_images_per_class": max_images_per_class,
        "tolerance": tolerance,
        "modes": modes,
        "rank": rank,
    }
    if data.endswith((".yaml", ".yml")):
        return _plan_recipe(
            data, ipc=ipc, prior=prior, devices=devices, given=[name for name, value in changes.items() if value is not None]
        )
    if prior is None:
        raise SettingsError("A plan needs a prior.", found="no --prior", hint="give the prior that you will distil with.")
    distill_settings(preset, ipc=ipc, **changes)  # complains before any image is read
    require_protocol(protocol)
    named = read_class_map(class_map) if class_map else None
    progress = OnTerminal()
    known: Prior | PriorShape
    if prior in SHAPES and not Path(prior).is_dir():
        known = replace(SHAPES[prior], dtype=PRECISIONS[precision])
    else:
        known = Loading(autoencoder=autoencoder, precision=precision).load(prior, progress)
    images = reading.load(data, split, progress)
    progress.say("measuring this device")
    planned = plan_distillation(
        images.counts,
        known,
        images=images,
        test_images=test_images,
        ipc=ipc,
        preset=preset,
        store=store,
        class_map=named,
        student=student,
        protocol=protocol,
        evaluation_runs=evaluation_runs,
        devices=devices,
        **changes,
    )
    return Result(planned.as_text(), planned.as_values())


def _plan_recipe(file: str, *, ipc: int, prior: str | None, devices: int, given: list[str]) -> Result:
    from d3hr.recipes.planning import plan_recipe
    from d3hr.recipes.recipe import read_recipe

    if given:
        raise SettingsError(
            "The settings of a recipe stand in its file.", found=", ".join(f"--{name}" for name in given), hint="change a copy of the file."
        )
    progress = OnTerminal()
    recipe = read_recipe(file)
    loaded = LOADING.load(prior, progress) if prior else None
    progress.say("measuring this device")
    planned = plan_recipe(recipe, ipc=ipc, prior=loaded, devices=devices)
    return Result(planned.as_text(), planned.as_values())
