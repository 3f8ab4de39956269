"""From real images to a distilled set: for each class encode, invert and match; then group, denoise and decode.

A class is the unit of work. What is finished stays in the staged folder, so a run that was stopped goes on where it was and ends with the
same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.data import ImageData
from d3hr.distillation.drawing import check_finite, draw_images
from d3hr.distillation.grouping import draw_group, search_candidates
from d3hr.distillation.inversion import invert
from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.settings import DistillSettings, distill_settings
from d3hr.errors import DataError, DistilledSetError, PriorError, listed
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.staging import StagedFolder, write_json
from d3hr.storage import DistilledSet, Origin, read_gaussians, write_gaussians, write_set


def distill(
    images: ImageData,
    prior: Prior,
    out: str | Path,
    *,
    ipc: int = 10,
    preset: str = "paper",
    seed: int = 0,
    progress: Progress = SILENT,
    **changes: Any,
) -> DistilledSet:
    """Distil a data set into ``ipc`` images per class (D3HR, arXiv 2505.18399).

    Args:
        images: the real images.
        prior: a diffusion prior that knows every class by name.
        out: folder to write.
        ipc: images per class.
        preset: ``paper``, ``released`` or ``gentle``.
        seed: seed of the group draws.
        progress: where to report.
        changes: settings that differ from the preset's, by the names of :class:`~d3hr.distillation.settings.DistillSettings`.

    Raises:
        ClassMismatch: the prior lacks a class.
        DataError: a class has fewer than two images.
        SettingsError: a setting is unknown or out of range.
        OutputError: ``out`` holds something else.
        NumericalError: a latent is not finite.
    """
    settings = distill_settings(preset, ipc=ipc, seed=seed, **changes)
    prior.schedule.grid(settings.steps)  # refuses a grid the prior does not have
    ids = prior.conditioning_ids(images.class_names, images.source)
    small = [f"{name} ({count})" for name, count in images.counts.items() if count < 2]
    if small:
        raise DataError(
            "A class needs at least two images, for its spread to be measured.",
            found=listed(small),
            do="add images to these classes or remove them.",
        )
    origin = Origin(
        method="d3hr",
        class_names=images.class_names,
        ipc=ipc,
        image_size=prior.image_size,
        settings=settings.model_dump(mode="json"),
        data={
            "source": images.source,
            "split": images.split,
            "fingerprint": images.fingerprint,
            "images": len(images),
            "skipped": list(images.skipped),
        },
        prior={"source": prior.source, "fingerprint": prior.fingerprint},
        real_counts=images.counts,
        conditioning_ids=ids,
    )
    stage = StagedFolder(out, origin.key())
    if stage.finished:
        return DistilledSet.load(out)
    if stage.resumed:
        progress.say(f"going on with {stage.path}")
    gaussians = _match_classes(images.at_size(prior.image_size), prior, settings, ids, stage.path / "statistics", progress)
    return _draw_set(stage, origin, prior, settings, gaussians, progress)


def expand(
    distilled: DistilledSet, prior: Prior, out: str | Path, *, ipc: int, seed: int | None = None, progress: Progress = SILENT
) -> DistilledSet:
    """Make a set of another IPC from the statistics of ``distilled``; the same IPC and seed give the same images.

    Args:
        distilled: a set with statistics.
        prior: the prior it was made with.
        out: folder to write.
        ipc: images per class.
        seed: seed of the group draws, by default that of ``distilled``.
        progress: where to report.

    Raises:
        DistilledSetError: the set has no statistics.
        PriorError: the prior is another one.
        SettingsError: ``ipc`` is out of range.
        OutputError: ``out`` holds something else.
    """
    manifest = distilled.manifest
    if not distilled.statistics:
        raise DistilledSetError(
            f"{distilled.path} has no statistics to expand.",
            found=f"a set of method {manifest.method!r}",
            do="give a set written by 'd3hr distill'.",
        )
    if prior.fingerprint != manifest.prior["fingerprint"]:
        raise PriorError(
            "This is not the prior that the set was made with; its latents mean something else.",
            found=f"prior {prior.fingerprint[:12]}, the set's is {manifest.prior['fingerprint'][:12]} ({manifest.prior['source']})",
            do="give that prior.",
        )
    settings = distill_settings(
        "paper", **{**manifest.settings, "ipc": ipc, "seed": seed if seed is not None else manifest.settings["seed"]}
    )
    origin = Origin(
        method=manifest.method,
        class_names=distilled.class_names,
        ipc=ipc,
        image_size=manifest.image_size,
        settings=settings.model_dump(mode="json"),
        data=manifest.data,
        prior=manifest.prior,
        real_counts={entry.name: entry.real_images for entry in manifest.classes if entry.real_images is not None},
        conditioning_ids=prior.conditioning_ids(distilled.class_names, str(distilled.path)),
    )
    stage = StagedFolder(out, origin.key())
    if stage.finished:
        return DistilledSet.load(out)
    return _draw_set(stage, origin, prior, settings, distilled.statistics, progress)


def _match_classes(
    images: ImageData, prior: Prior, settings: DistillSettings, ids: list[int], folder: Path, progress: Progress
) -> dict[str, ClassGaussian]:
    """Return the Gaussian of each class, from its finished file where an earlier run left one."""
    folder.mkdir(exist_ok=True)
    gaussians: dict[str, ClassGaussian] = {}
    done = 0
    with progress.bar("inverting images", len(images)) as bar:
        for index, (name, conditioning_id) in enumerate(zip(images.class_names, ids, strict=True)):
            file = folder / f"{index:06d}.safetensors"
            if not file.exists():
                batches = images.batches(name, settings.batch_size)
                gaussian = _match(batches, prior, settings, conditioning_id, name, lambda seen: bar.update(done + seen, note=name))  # noqa: B023
                write_gaussians(file, [gaussian])
            # Read back in any case: float32 on disk is what expand will see.
            gaussians[name] = read_gaussians(file)[0]
            done += images.counts[name]
            bar.update(done, note=name)
    return gaussians


def _match(
    batches: Any, prior: Prior, settings: DistillSettings, conditioning_id: int, name: str, seen: Callable[[int], None]
) -> ClassGaussian:
    gaussian = ClassGaussian.empty(torch.Size(prior.latent_shape).numel())
    for batch in batches:
        labels = torch.full((len(batch),), conditioning_id)
        latents = invert(
            prior,
            prior.encode(batch),
            labels,
            level=settings.statistics_level,
            steps=settings.steps,
            guidance_scale=settings.inversion_guidance,
            solver=settings.solver,
        )
        check_finite(latents, f"inversion of class {name!r}")
        gaussian = gaussian.update(latents.flatten(1))
        seen(gaussian.count)
    return gaussian


def _draw_set(
    stage: StagedFolder, origin: Origin, prior: Prior, settings: DistillSettings, gaussians: Mapping[str, ClassGaussian], progress: Progress
) -> DistilledSet:
    """Group, denoise and decode class by class, and complete the set."""
    candidates = _search(stage.path / "candidates.json", gaussians, settings, progress)

    def images_of(name: str) -> Tensor:
        group = draw_group(name, gaussians[name], settings, candidates.get(name)).float()
        return draw_images(
            prior,
            group.view(-1, *prior.latent_shape),
            name,
            level=settings.denoising_level,
            steps=settings.steps,
            guidance_scale=settings.denoising_guidance,
            batch_size=settings.batch_size,
        )

    return write_set(stage, origin, images_of, gaussians=gaussians, progress=progress, temporary=("statistics", "candidates.json"))


def _search(file: Path, gaussians: Mapping[str, ClassGaussian], settings: DistillSettings, progress: Progress) -> dict[str, int]:
    if not file.exists():
        write_json(file, search_candidates(gaussians, settings, progress))
    found: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
    return found
