"""From class statistics to the images of a set: choose groups of latents, denoise and decode them class by class, and write the set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from torch import Tensor

from d3hr.distillation.grouping import search_mixtures
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.settings import DistillSettings, ExpandOptions, StatisticsSettings, distill_settings
from d3hr.distillation.tasks import GenerateTasks, ImageGenerator
from d3hr.errors import SettingsError
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.atomic import load_or_make
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.class_matching import conditioning_ids
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.sets.manifest import Manifest
from d3hr.sets.writer import write_set


def expand_statistics(
    manifest: Manifest,
    mixtures: Mapping[str, ClassMixture],
    prior: Prior,
    out: str | Path,
    *,
    ipc: int,
    execution: Execution = SERIAL,
    memory_budget: int | None = None,
    progress: Progress = SILENT,
    **options: Unpack[ExpandOptions],
) -> None:
    """Write a set of another IPC from class statistics, unless ``out`` already is that set.

    Args:
        manifest: the manifest of the set that has the statistics.
        mixtures: the statistics of each class.
        prior: the prior that they were measured with.
        out: folder to write.
        ipc: images per class.
        execution: where the work is done.
        memory_budget: bytes that a search may hold.
        progress: where to report.
        options: settings of grouping and denoising that differ from the manifest's; None is no change.

    Raises:
        SettingsError: ``ipc`` is out of range, or a change is, or it would need other statistics.
        OutputError: ``out`` holds something else.
    """
    changes = {name: value for name, value in options.items() if value is not None}
    fixed = sorted(StatisticsSettings.model_fields.keys() & changes.keys())
    if fixed:
        raise SettingsError(f"--{fixed[0]} decides the statistics, which are made.", found=f"a change of {fixed[0]}", hint="distil anew.")
    settings = distill_settings(**{**manifest.settings, **changes, "ipc": ipc})
    settings.require_no_copies()
    expanded = manifest.changed(settings=settings, ipc=ipc)
    with StagedFolder(out, expanded.key()) as stage, execution.session() as place:
        if not stage.finished:
            write_drawn_set(stage, expanded, prior, settings, mixtures, execution=place, memory_budget=memory_budget, progress=progress)


def write_drawn_set(
    stage: StagedFolder,
    manifest: Manifest,
    prior: Prior,
    settings: DistillSettings,
    mixtures: Mapping[str, ClassMixture],
    *,
    execution: Execution = SERIAL,
    memory_budget: int | None = None,
    progress: Progress = SILENT,
) -> None:
    """Complete a staged set with images drawn from class statistics; with none where ``manifest`` has an IPC of 0.

    Args:
        stage: the folder under construction.
        manifest: what the set is.
        prior: the prior that the statistics were measured with.
        settings: how groups are chosen and denoised.
        mixtures: the statistics of each class, looked up when its turn comes.
        execution: where the work is done.
        memory_budget: bytes that a search may hold, by default 256 MiB.
        progress: where to report.

    Raises:
        DataError: at temperature 0 a class has fewer modes than images.
        NumericalError: a latent or a pixel is not finite; the message names the class.
    """

    def search() -> dict[str, dict[str, int]]:
        device = prior.device.type
        candidates = search_mixtures(mixtures, settings, progress=progress, memory_budget=memory_budget, device=device, execution=execution)
        return {"candidates": candidates}

    kept = load_or_make(stage.path / "candidates.json", search, progress) if manifest.ipc else {"candidates": {}}
    generator = ImageGenerator(prior, settings, conditioning_ids(manifest.conditioning))

    def draw(names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        return ((names[index], images) for index, images in execution.run(generator, GenerateTasks(names, mixtures, kept["candidates"])))

    write_set(
        stage,
        manifest,
        draw,
        mixtures=mixtures,
        statistics_dtype=settings.statistics_dtype,
        temporary=("statistics", "candidates.json"),
        progress=progress,
    )
