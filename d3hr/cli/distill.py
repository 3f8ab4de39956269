"""``d3hr distill``: a data set into a few images per class."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d3hr.cli.options import LOADING, MEMORY, READING, RUNNING, Loading, Memory, Reading, Running
from d3hr.cli.output import Result, next_evaluation
from d3hr.data.ahead import decoders_of_each
from d3hr.distillation.overrides import NO_CHANGES, DistillOverrides
from d3hr.distillation.presets import distill_settings
from d3hr.progress import OnTerminal, Progress

if TYPE_CHECKING:
    from d3hr.data.dataset import ImageData
    from d3hr.sets.manifest import Manifest


def distill(
    data: str,
    *,
    out: str | None = None,
    prior: str | None = None,
    ipc: int = 10,
    preset: str | None = None,
    minutes: float | None = None,
    labels: Literal["hard", "soft"] | None = None,
    test: str | None = None,
    test_split: str | None = None,
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
    memory: Memory = MEMORY,
) -> Result:
    """Distil a data set into a few images per class.

    Without --prior, --preset and settings, or with --preset auto, ways to make a set are compared on a held-out part of the images, the
    best is taken, and DATA-distilled-report.html says what it is worth. Otherwise settings that are left out are the preset's.

    Args:
        data: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        out: folder to write the distilled set to, by default DATA-distilled where everything is chosen
        prior: folder, checkpoint of SiT or Hub id of a diffusion prior of any family (docs/families.md); real candidates need none
        ipc: images per class
        preset: auto (everything is chosen), paper (the default of drawn images), fast, released, mixture, gentle (for weak priors), or
            real (chosen real images)
        minutes: what the choice of everything may take, 20 by default
        labels: what students of the choice learn from: hard (the default), or soft, the answers of a teacher
        test: test images, on which the chosen set is compared with random real images once, at the end
        test_split: split of the test images
        teacher: folder of a teacher, by which real images are chosen
        image_size: side in pixels of real images, by default their own
        store: images with the statistics next to them, or the statistics alone, for expand
        split: train, validation, test, ...; train by default
        decoders: processes that read and decode images ahead, for each worker; by default none on a CPU or on Ray, up to 8 with a GPU
        shared: folder for what does not depend on the IPC where real images are chosen; sets of the same data find it again there
        distillation: settings that differ from the preset's
        loading: how the prior is loaded
        reading: how images are read
        running: where the work runs
        memory: how much memory it may hold
    """
    from d3hr.automatic.entry import is_automatic, require_no_settings, require_nothing_of_choices
    from d3hr.errors import SettingsError
    from d3hr.evaluation.teachers import Teacher
    from d3hr.fileio.staging import require_free_or_ours
    from d3hr.pipeline import distill as distill_images

    options = distillation.options
    of_choice = {"minutes": minutes, "labels": labels, "test": test, "test_split": test_split}
    kept = {"image_size": image_size, "decoders": decoders, "shared": shared}
    given = [*(options.keys() - {"seed"}), *(name for name, value in kept.items() if value is not None)]
    given += [*(["store"] if store != "images" else []), *(["execution"] if (running, memory) != (RUNNING, MEMORY) else [])]
    if is_automatic(preset, prior is not None, given):
        require_no_settings(given)
        return _chosen(
            data,
            prior=prior,
            out=out,
            ipc=ipc,
            teacher=teacher,
            split=split,
            seed=options.get("seed", 0),
            minutes=minutes,
            labels=labels,
            test=test,
            test_split=test_split,
            loading=loading,
            reading=reading,
        )
    require_nothing_of_choices(of_choice)
    if out is None:
        raise SettingsError("--out is missing.", found="settings of your own", hint="name a folder to write to.")
    settings = distill_settings(preset, ipc=ipc, **options)  # refuses wrong settings before any image is read
    settings.require_for(store)
    settings.require_networks(prior=prior is not None, teacher=teacher is not None)
    require_free_or_ours(out)
    execution, budget = running.chosen(), memory.budget()
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
        decoders=_decoders(loaded.device.type if loaded else "cpu", running) if decoders is None else decoders,
        shared=shared,
        memory_budget=budget,
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


def _chosen(
    data: str,
    *,
    prior: str | None,
    out: str | None,
    ipc: int,
    teacher: str | None,
    split: str | None,
    seed: int,
    minutes: float | None,
    labels: Literal["hard", "soft"] | None,
    test: str | None,
    test_split: str | None,
    loading: Loading,
    reading: Reading,
) -> Result:
    """Choose everything on held-out images, and say what came of it and what to do next."""
    from d3hr.automatic.choosing import HOLD_OUT, MINUTES, choose_set
    from d3hr.cli.options import warn_of_leak
    from d3hr.evaluation.teachers import Teacher
    from d3hr.fileio.names import sibling
    from d3hr.fileio.staging import require_free_or_ours

    started = time.monotonic()
    progress, place = OnTerminal(), Path(out) if out else sibling(data, "-distilled")
    require_free_or_ours(place)
    images = replace(reading, hold_out=0.0).load(data, split, progress)
    tested = reading.load(test, test_split, progress, test=True) if test else _test_split(images, reading, progress)
    if tested:
        warn_of_leak(images, tested, progress)
    outcome = choose_set(
        images,
        loading.load(prior, progress) if prior else None,
        place,
        minutes=MINUTES if minutes is None else minutes,
        labels=labels or "hard",
        ipc=ipc,
        teacher=Teacher.load(teacher, device=loading.device) if teacher else None,
        test=tested,
        hold_out=reading.hold_out or HOLD_OUT,
        class_map=loading.classes(),
        seed=seed,
        flags=(*(("--split", split) if split else ()), *replace(reading, hold_out=0.0).flags),
        spent=time.monotonic() - started,
        progress=progress,
    )
    choice, distilled = outcome.choice, outcome.distilled
    real = distilled.manifest.about_real_images
    lines = [
        choice.headline,
        *choice.sentences,
        *([f"It {real}; do not pass it on where you may not pass on the data."] if real else []),
        f"The page with all of it: {outcome.report}",
        f"The pictures: {place}/contact-sheet.png, {place}/train/CLASS/00000.png ...",
        f'To load them: datasets.load_dataset("imagefolder", data_dir="{place}")',
        f"To make the set again: {choice.winner.command}",
        f"Next: {choice.next_step}",
    ]
    values = {"out": str(place), "report": str(outcome.report), "folder": str(outcome.folder), **choice.as_values()}
    return Result("\n".join(lines), values, outcome.folder)


def _test_split(images: ImageData, reading: Reading, progress: Progress) -> ImageData | None:
    """Return the test split of the source, if it has one."""
    from d3hr.data.splits import held_out_split

    name = held_out_split(images.splits, images.split, "test")
    return reading.load(images.source, name, progress, test=True) if name else None


def _about_samples(manifest: Manifest) -> str:
    """Return a line about statistics that come from a part of the images; nothing if they come from all."""
    samples = [entry.sample for entry in manifest.classes if entry.sample]
    if not samples:
        return ""
    errors = (
        f"{max(sample.mean_error for sample in samples):.3f} sigma (mean), {max(sample.std_error for sample in samples):.3f} sigma (spread)"
    )
    return f"\nStatistics come from {sum(sample.images for sample in samples):,} images; largest standard error {errors}."


def _decoders(device: str, running: Running) -> int:
    """Return how many processes of each worker decode images by default, so that all together fill the machine once.

    None on a CPU, where the networks need the cores, and on Ray, which does not count them: there threads do it.
    """
    return 0 if device == "cpu" or running.execution == "ray" else decoders_of_each(running.workers or 1)
