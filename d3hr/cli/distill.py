"""``d3hr distill``: a data set into a few images per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d3hr.cli.options import LOADING, READING, RUNNING, Loading, Reading, Running
from d3hr.cli.output import Result, next_evaluation
from d3hr.distillation.overrides import NO_CHANGES, DistillOverrides
from d3hr.distillation.presets import distill_settings
from d3hr.progress import OnTerminal

if TYPE_CHECKING:
    from d3hr.sets.manifest import Manifest


def distill(
    data: str,
    *,
    out: str,
    prior: str | None = None,
    ipc: int = 10,
    preset: str | None = None,
    teacher: str | None = None,
    image_size: int | None = None,
    store: Literal["images", "statistics"] = "images",
    split: str | None = None,
    decoders: int | None = None,
    shared: str | None = None,
    distillation: DistillOverrides = NO_CHANGES,
    loading: Loading = LOADING,
    reading: Reading = READING,
    running: Running = RUNNING,
) -> Result:
    """Distil a data set into a few images per class. Settings left out are the preset's.

    Args:
        data: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        out: folder to write the distilled set to
        prior: folder or Hub id of a diffusion prior that knows the classes by name; real candidates need none
        ipc: images per class
        preset: paper (the default of drawn images), fast, released, mixture, gentle (for weak priors), or real (chosen real images)
        teacher: folder of a teacher, by which real images are chosen
        image_size: side in pixels of real images, by default their own
        store: images with the statistics next to them, or the statistics alone, for expand
        split: train, validation, test, ...; train by default
        decoders: processes that read and decode images ahead, for each worker; by default none on a CPU, up to 8 with a GPU
        shared: folder for what does not depend on the IPC where real images are chosen; sets of the same data find it again there
        distillation: settings that differ from the preset's
        loading: how the prior is loaded
        reading: how images are read
        running: where the work runs
    """
    from d3hr.evaluation.teachers import Teacher
    from d3hr.fileio.staging import require_free_or_ours
    from d3hr.pipeline import distill as distill_images

    options = distillation.options
    settings = distill_settings(preset, ipc=ipc, **options)  # refuses wrong settings before any image is read
    settings.require_for(store)
    settings.require_networks(prior=prior is not None, teacher=teacher is not None)
    require_free_or_ours(out)
    execution, memory = running.chosen(), running.budget()
    class_map = loading.classes()
    progress = OnTerminal()
    loaded = loading.load(prior, progress) if prior and "prior" in settings.needs else None
    classifier = Teacher.load(teacher, device=loading.device) if teacher else None
    images = reading.load(data, split, progress)
    distilled = distill_images(
        images,
        loaded,
        out,
        teacher=classifier,
        ipc=ipc,
        image_size=image_size,
        preset=preset,
        store=store,
        class_map=class_map,
        execution=execution,
        decoders=_decoders(loaded.device.type if loaded else "cpu") if decoders is None else decoders,
        shared=shared,
        memory_budget=memory,
        progress=progress,
        **options,
    )
    manifest = distilled.manifest
    if store == "images":
        about = f"It {manifest.about_real_images}; manifest.json names their sources.\n" if manifest.about_real_images else ""
        text = (
            f"{ipc} image(s) of each of {len(distilled.class_names)} classes in {out} (look at {out}/contact-sheet.png).\n"
            f"{about}{next_evaluation(out, images)}"
        )
    else:
        text = f"Statistics of {len(distilled.class_names)} classes in {out}.\nNext: d3hr expand {out} --ipc {ipc} --out SET"
    text += _about_samples(manifest)
    values = {
        "out": out,
        "ipc": manifest.ipc,
        "classes": list(distilled.class_names),
        "settings": manifest.settings,
        "real_images": manifest.real_images,
        "storage": manifest.storage,
    }
    return Result(text, values, Path(out))


def _about_samples(manifest: Manifest) -> str:
    """Return a line about statistics that come from a part of the images; nothing if they come from all."""
    samples = [entry.sample for entry in manifest.classes if entry.sample]
    if not samples:
        return ""
    errors = (
        f"{max(sample.mean_error for sample in samples):.3f} sigma (mean), {max(sample.std_error for sample in samples):.3f} sigma (spread)"
    )
    return f"\nStatistics come from {sum(sample.images for sample in samples):,} images; largest standard error {errors}."


def _decoders(device: str) -> int:
    """Return how many processes decode images by default: none on a CPU, where the networks need the cores."""
    return 0 if device == "cpu" else min(8, max(1, (os.cpu_count() or 1) - 1))
