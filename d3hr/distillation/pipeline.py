"""From real images to a distilled set: for each class encode, invert (or noise) and match; then group, denoise and decode.

A class is the unit of work. What is finished stays in the staged folder, so a run that was stopped goes on where it was and ends with the
same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from d3hr.data import ImageData
from d3hr.distillation.drawing import draw_images
from d3hr.distillation.forward_noise import forward_noise
from d3hr.distillation.grouping import draw_group, search_candidates
from d3hr.distillation.inversion import check_finite, invert
from d3hr.distillation.levels import choose_level
from d3hr.distillation.matching import ClassGaussian
from d3hr.distillation.settings import STATISTICS_SETTINGS, DistillSettings, distill_settings
from d3hr.distillation.statistics_file import read_gaussians, write_gaussians
from d3hr.errors import DataError, DistilledSetError, NumericalError, PriorError, SettingsError, listed
from d3hr.prior.conditioning import Conditioning, match_classes
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.seeds import generator_for
from d3hr.staging import StagedFolder, write_json
from d3hr.storage import DistilledSet, Origin, write_set


def distill(
    images: ImageData,
    prior: Prior,
    out: str | Path,
    *,
    ipc: int = 10,
    preset: str = "paper",
    level: int | Literal["auto"] | None = None,
    store: Literal["images", "statistics"] = "images",
    class_map: Mapping[str, str] | None = None,
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
        preset: ``paper``, ``released``, ``fast`` or ``gentle``.
        level: level of statistics and of denoising, both; ``"auto"`` takes the knee of normality on a sample of classes (see
            :func:`~d3hr.distillation.levels.choose_level`), says why, and keeps the evidence in ``level.json``.
        store: ``"images"`` with the statistics beside them, or the ``"statistics"`` alone, from which ``expand`` makes any number.
        class_map: class -> prior's class, for classes whose names do not match (see :func:`~d3hr.prior.conditioning.match_classes`).
        seed: seed of the group draws.
        progress: where to report.
        changes: settings that differ from the preset's, by the names of :class:`~d3hr.distillation.settings.DistillSettings`.

    Raises:
        ClassMismatch: a class matches no class of the prior, or several.
        DataError: a class has fewer than two images.
        SettingsError: a setting is unknown, out of range, or contradicts another.
        OutputError: ``out`` holds something else.
        NumericalError: a latent is not finite; the message names class and level.
    """
    settings = distill_settings(preset, level=level, ipc=ipc, seed=seed, **changes)
    prior.schedule.grid(settings.steps)  # refuses a grid the prior does not have
    conditioning = match_classes(images.class_names, prior.class_names, of=images.source, class_map=class_map)
    small = [f"{name} ({count})" for name, count in images.counts.items() if count < 2]
    if small:
        raise DataError(
            "A class needs at least two images, for its spread to be measured.",
            found=listed(small),
            do="add images to these classes or remove them.",
        )
    origin = Origin(
        method=settings.method,
        class_names=images.class_names,
        ipc=ipc if store == "images" else 0,
        image_size=prior.image_size,
        settings=settings.model_dump(mode="json"),
        data={
            "source": images.source,
            "split": images.split,
            "fingerprint": images.fingerprint,
            "images": len(images),
            "skipped": list(images.skipped),
        },
        prior=prior.origin,
        real_counts=images.counts,
        conditioning=conditioning,
    )
    stage = StagedFolder(out, {**origin.key(), "level": "auto"} if level == "auto" else origin.key())
    if stage.finished:
        return DistilledSet.load(out)
    if stage.resumed:
        progress.say(f"going on with {stage.path}")
    sized = images.at_size(prior.image_size)
    if level == "auto":
        chosen = _choose_level(stage.path / "level.json", sized, prior, conditioning, settings, progress)
        settings = settings.model_copy(update={"statistics_level": chosen, "denoising_level": chosen})
        origin = replace(origin, settings=settings.model_dump(mode="json"))
    gaussians = _match_classes(sized, prior, settings, conditioning, stage.path / "statistics", progress)
    return _draw_set(stage, origin, prior, settings, gaussians, progress)


def expand(
    distilled: DistilledSet,
    prior: Prior,
    out: str | Path,
    *,
    ipc: int,
    seed: int | None = None,
    progress: Progress = SILENT,
    **changes: Any,
) -> DistilledSet:
    """Make a set of another IPC from the statistics of ``distilled``; the same IPC and seed give the same images.

    Args:
        distilled: a set with statistics.
        prior: the prior it was made with.
        out: folder to write.
        ipc: images per class.
        seed: seed of the group draws, by default that of ``distilled``.
        progress: where to report.
        changes: settings of grouping and denoising that differ from those of ``distilled``.

    Raises:
        DistilledSetError: the set has no statistics.
        PriorError: the prior is another one.
        SettingsError: ``ipc`` is out of range, or a change is, or it would need other statistics.
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
            found=f"prior {prior.fingerprint[:12]}, {prior.precision}; the set's is {manifest.prior['fingerprint'][:12]}, "
            f"{manifest.prior.get('precision')} ({manifest.prior['source']})",
            do="give that prior, in that precision and with the same autoencoder.",
        )
    changes = {name: value for name, value in changes.items() if value is not None}
    fixed = sorted(STATISTICS_SETTINGS & changes.keys())
    if fixed:
        raise SettingsError(f"--{fixed[0]} decides the statistics, which are made.", found=f"a change of {fixed[0]}", do="distil anew.")
    seed = manifest.settings["seed"] if seed is None else seed
    settings = distill_settings("paper", **{**manifest.settings, **changes, "ipc": ipc, "seed": seed})
    origin = Origin(
        method=manifest.method,
        class_names=distilled.class_names,
        ipc=ipc,
        image_size=manifest.image_size,
        settings=settings.model_dump(mode="json"),
        data=manifest.data,
        prior=manifest.prior,
        real_counts={entry.name: entry.real_images for entry in manifest.classes if entry.real_images is not None},
        conditioning=manifest.conditioning,
    )
    stage = StagedFolder(out, origin.key())
    if stage.finished:
        return DistilledSet.load(out)
    return _draw_set(stage, origin, prior, settings, distilled.statistics, progress)


def _choose_level(
    file: Path, images: ImageData, prior: Prior, conditioning: Sequence[Conditioning], settings: DistillSettings, progress: Progress
) -> int:
    """Return the level that an earlier run chose, or choose one and say why."""
    if not file.exists():
        choice = choose_level(images, prior, conditioning, settings, progress)
        progress.say(choice.as_text())
        write_json(file, choice.as_values())
    return int(json.loads(file.read_text(encoding="utf-8"))["level"])


def _match_classes(
    images: ImageData, prior: Prior, settings: DistillSettings, conditioning: Sequence[Conditioning], folder: Path, progress: Progress
) -> dict[str, ClassGaussian]:
    """Return the Gaussian of each class, from its finished file where an earlier run left one."""
    folder.mkdir(exist_ok=True)
    gaussians: dict[str, ClassGaussian] = {}
    done = 0
    with progress.bar("inverting images" if settings.inversion_level else "encoding images", len(images)) as bar:
        for index, match in enumerate(conditioning):
            name, file = match.class_name, folder / f"{index:06d}.safetensors"
            if not file.exists():
                batches = images.batches(name, settings.batch_size)
                with NumericalError.naming(name):
                    gaussian = _match(
                        batches,
                        prior,
                        settings,
                        match.conditioning_id,
                        lambda seen: bar.update(done + seen, note=name),  # noqa: B023
                        generator_for("forward noise", name),
                    )
                write_gaussians(file, [gaussian], settings.statistics_dtype)
            # Read back in any case: what is on disk is what expand will see.
            gaussians[name] = read_gaussians(file)[0]
            done += images.counts[name]
            bar.update(done, note=name)
    return gaussians


def _match(
    batches: Iterable[Tensor],
    prior: Prior,
    settings: DistillSettings,
    conditioning_id: int,
    seen: Callable[[int], None],
    generator: torch.Generator,
) -> ClassGaussian:
    gaussian = ClassGaussian.empty(torch.Size(prior.latent_shape).numel())
    for batch in batches:
        clean = prior.encode(batch)
        check_finite(clean, "encoding", "in its latents")
        if settings.carrying == "forward_noise":
            latents = forward_noise(prior.schedule, clean, level=settings.statistics_level, steps=settings.steps, generator=generator)
        else:
            latents = invert(
                prior,
                clean,
                torch.full((len(batch),), conditioning_id),
                level=settings.statistics_level,
                steps=settings.steps,
                guidance_scale=settings.inversion_guidance,
                solver=settings.solver,
                stride=settings.inversion_stride,
            )
        gaussian = gaussian.update(latents.flatten(1))
        seen(gaussian.count)
    return gaussian


def _draw_set(
    stage: StagedFolder, origin: Origin, prior: Prior, settings: DistillSettings, gaussians: Mapping[str, ClassGaussian], progress: Progress
) -> DistilledSet:
    """Group, denoise and decode class by class, unless only statistics are kept, and complete the set."""
    candidates = _search(stage.path / "candidates.json", gaussians, settings, progress) if origin.ipc else {}
    ids = {match.class_name: match.conditioning_id for match in origin.conditioning or ()}

    def images_of(name: str) -> Tensor:
        group = draw_group(name, gaussians[name], settings, candidates.get(name)).float()
        with NumericalError.naming(name):
            return draw_images(
                prior,
                group.view(-1, *prior.latent_shape),
                ids[name],
                level=settings.denoising_level,
                steps=settings.steps,
                guidance_scale=settings.denoising_guidance,
                batch_size=settings.batch_size,
            )

    return write_set(
        stage,
        origin,
        images_of,
        gaussians=gaussians,
        statistics_dtype=settings.statistics_dtype,
        temporary=("statistics", "candidates.json"),
        progress=progress,
    )


def _search(file: Path, gaussians: Mapping[str, ClassGaussian], settings: DistillSettings, progress: Progress) -> dict[str, int]:
    if not file.exists():
        write_json(file, search_candidates(gaussians, settings, progress))
    found: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
    return found
