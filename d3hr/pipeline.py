"""From real images to a distilled set: per class encode, invert (or add noise) and measure statistics; then group, denoise and decode.

Or, where candidates are real: per class compare the images, and choose. A class is the unit of work. Finished classes stay in the staged
folder, so a run that was stopped continues where it was, and ends with the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Unpack

from d3hr.data.codec import require_side
from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.distillation.batching import BatchChoice, choose_batch_size
from d3hr.distillation.chunks import ClassChunks, MergedChunks
from d3hr.distillation.estimation import StandardError
from d3hr.distillation.grouping import needs_search
from d3hr.distillation.levels import MEASURING_LEVELS, LevelChoice, choose_level
from d3hr.distillation.pool import SEARCHING
from d3hr.distillation.presets import DistillOptions, ExpandOptions, distill_settings
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import StatisticsEstimator, require_grid, require_two_images
from d3hr.errors import SettingsError, require_kind
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.atomic import load_or_make
from d3hr.fileio.checksums import digest_of
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import OPEN_PRIOR, Prior
from d3hr.progress import BY_DEFAULT, InSteps, Progress
from d3hr.selection.real_images import CHOOSING, Selection, require_real_images, sources_of
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.entries import Sample
from d3hr.sets.growth import Change, changes_since, reuse_classes, write_contents
from d3hr.sets.manifest import Manifest
from d3hr.sets.packing import tile_side
from d3hr.sets.statistics import KeptMixtures
from d3hr.sets.writer import TEMPORARY, WRITING, Images, write_drawn_set, write_set


def distill(
    images: ImageData,
    prior: Prior | None,
    out: str | Path,
    *,
    teacher: Teacher | None = None,
    ipc: int = 10,
    image_size: int | None = None,
    preset: str | None = None,
    store: Literal["images", "statistics"] = "images",
    class_map: Mapping[str, str] | None = None,
    execution: Execution = SERIAL,
    decoders: int = 0,
    shared: str | Path | None = None,
    memory_budget: int | None = None,
    previous: DistilledSet | None = None,
    progress: Progress = BY_DEFAULT,
    **options: Unpack[DistillOptions],
) -> DistilledSet:
    """Distil a data set into ``ipc`` images per class (D3HR, arXiv 2505.18399), drawn or chosen.

    Args:
        images: the real images.
        prior: a diffusion prior that knows every class by name; None where real images are chosen without one.
        out: folder to write.
        teacher: a network trained on all the real images, for ``space="teacher"``, and for rules and filters that ask how sure it is;
            without one, networks trained on parts of the images answer for the others.
        ipc: images per class.
        image_size: side in pixels of real images as they are, by default their own (median); others have the side of the prior.
        preset: ``paper``, ``released``, ``fast``, ``mixture``, ``gentle`` or ``real``; by default what suits the candidates.
        store: ``"images"`` together with the statistics, or the ``"statistics"`` alone, from which ``expand`` makes images.
        class_map: class -> prior's class, for classes whose names do not match (see :func:`~d3hr.prior.class_matching.match_classes`).
        execution: where the work runs: in this process, in worker processes, or on a cluster (:mod:`d3hr.execution`); the set does not
            depend on it.
        decoders: processes that read and decode images ahead, per worker; with 0 a thread decodes the next batch.
        shared: folder where what does not depend on the IPC, such as how sure networks are of each real image, is kept for other sets of
            the same data; by default nowhere.
        memory_budget: bytes that a search may hold (256 MiB by default), and a batch of ``batch_size="auto"`` (by default what is free).
        previous: a set of the same settings and prior, whose classes are used again as far as their images have not changed (see
            :func:`~d3hr.updating.update`).
        progress: where to report.
        options: settings that differ from the preset's: :class:`~d3hr.distillation.settings.DistillSettings` says what each means.
            ``level="auto"`` takes the knee of normality on a sample of classes (:func:`~d3hr.distillation.levels.choose_level`),
            ``batch_size="auto"`` the size that makes the most images per second (:func:`~d3hr.distillation.batching.choose_batch_size`);
            the evidence is kept in ``level.json`` and ``batch_size.json``.

    Raises:
        ClassMismatch: a class matches no class of the prior, or several; the teacher has other classes.
        DataError: a class has fewer than two images, or fewer than are to be chosen.
        SettingsError: a setting is unknown, out of range, or contradicts another, or a network is missing.
        OutputError: ``out`` holds something else.
        NumericalError: a latent is not finite; the message names class and level.
    """
    require_kind("images", images, ImageData, OPEN_IMAGES)
    if prior is not None:
        require_kind("prior", prior, Prior, OPEN_PRIOR)
    settings = distill_settings(preset, ipc=ipc, **options)
    automatic = {name: "auto" for name, value in options.items() if value == "auto"}
    settings.require_for(store)
    settings.require_networks(prior=prior is not None, teacher=teacher is not None)
    if "prior" not in settings.needs:
        prior = None
    elif prior and (settings.generates or settings.statistics_level):
        require_grid(prior.schedule, settings)
    side = prior.image_size if prior and settings.generates else image_size or images.image_size
    _require_side(side, image_size, settings)
    conditioning = prior.denoiser.match(images.class_names, of=images.source, class_map=class_map) if prior else ()
    if teacher is not None:
        teacher.require_classes(images.class_names, images.source)
    if settings.candidates != "real":
        require_two_images(images.counts)
    settings = settings.with_sample_seed(images.counts.values())
    manifest = Manifest.of(
        method=settings.method,
        class_names=images.class_names,
        ipc=ipc if store == "images" else 0,
        image_size=side,
        settings=settings.as_values(),
        data=images.record,
        prior=prior.record if prior else None,
        real_counts=images.counts,
        conditioning=conditioning,
        pack=settings.pack,
        teacher=teacher.fingerprint if teacher and settings.asks_teacher else None,
    )
    conditions = prior.denoiser.conditions(conditioning) if prior else {}
    selection = Selection(images, settings, conditions, prior, teacher, Path(shared) if shared else None)
    require_real_images(images, selection.count)
    changes = changes_since(previous, images) if previous else {}
    updates = {"updates": digest_of(previous.identity)} if previous else {}
    with StagedFolder(out, {**manifest.key(), **automatic, **updates}) as stage:
        stage.report(progress)
        if stage.finished:
            return DistilledSet.load(out)
        progress = InSteps(progress, _steps(settings, automatic))
        if images.image_size != side:
            progress.say(f"images of {images.image_size} px (median) are read at {side} px{', the side of the prior' if prior else ''}")
        write_contents(stage.path, images)
        if previous:
            reuse_classes(stage.path, previous, changes, progress)
        with execution.session() as place:
            real: Images | None = None
            if settings.real_images:
                chosen = selection.choose(stage.path / "chosen", place, progress)
                manifest = manifest.with_sources(sources_of(images, chosen, settings.pack))
                real = selection.deliver(chosen, side, place)
            if settings.candidates == "real":
                assert real is not None
                write_set(stage, manifest, real, temporary=TEMPORARY, progress=progress)
                return DistilledSet.load(out)
            assert prior is not None
            sized = images.at_size(side)
            settings = _measured(settings, automatic, stage.path, sized, prior, conditioning, memory_budget, progress)
            estimator = StatisticsEstimator(sized, prior, settings, conditions, decoders)
            if previous:
                _merge_added(estimator, previous, changes, stage.path, place, progress)
            mixtures = _measure_statistics(estimator, images.class_names, stage.path / "statistics", place, progress)
            samples = _samples(mixtures) if settings.subsampled else None
            manifest = manifest.changed(settings=settings, ipc=manifest.ipc, samples=samples)
            write_drawn_set(
                stage, manifest, prior, settings, mixtures, real=real, execution=place, memory_budget=memory_budget, progress=progress
            )
    return DistilledSet.load(out)


def expand(
    distilled: DistilledSet,
    prior: Prior,
    out: str | Path,
    *,
    ipc: int,
    execution: Execution = SERIAL,
    memory_budget: int | None = None,
    progress: Progress = BY_DEFAULT,
    **options: Unpack[ExpandOptions],
) -> DistilledSet:
    """Make a set of another IPC from the statistics of ``distilled``, as :meth:`DistilledSet.expand` says."""
    return distilled.expand(prior, ipc, out, execution=execution, memory_budget=memory_budget, progress=progress, **options)


def _measuring(settings: DistillSettings) -> str:
    """Return the title of the bar of the statistics."""
    return "inverting images" if settings.inversion_level else "encoding images"


def _steps(settings: DistillSettings, automatic: Mapping[str, str]) -> list[str]:
    """Return the titles of the bars of a distillation, in their order."""
    titles = [CHOOSING] if settings.real_images else []
    if settings.candidates != "real":
        titles += [MEASURING_LEVELS] if "level" in automatic else []
        titles += [_measuring(settings)]
        titles += [SEARCHING] if needs_search(settings) else []
    return [*titles, WRITING]


def _require_side(side: int, asked: int | None, settings: DistillSettings) -> None:
    """Refuse another side than the prior's for what it generates, and one that cannot be packed."""
    if asked is not None and asked != side:
        raise SettingsError(
            "Images that a prior makes have its side.", found=f"--image-size {asked}, where the prior has {side}", hint="leave it out."
        )
    require_side(side)
    tile_side(side, settings.pack)


def _measured(
    settings: DistillSettings,
    automatic: Mapping[str, str],
    folder: Path,
    images: ImageData,
    prior: Prior,
    conditioning: Sequence[Conditioning],
    memory_budget: int | None,
    progress: Progress,
) -> DistillSettings:
    """Return the settings with the level and the batch size that are ``automatic`` measured; the evidence is kept in ``folder``."""
    if "level" in automatic:
        level = _choice(folder / "level.json", lambda: choose_level(images, prior, conditioning, settings, progress), progress)
        settings = settings.model_copy(update={"statistics_level": level["level"], "denoising_level": level["level"]})
    if "batch_size" in automatic:
        largest = max(images.counts.values())
        size = _choice(
            folder / "batch_size.json",
            lambda: choose_batch_size(prior, settings, memory_budget=memory_budget, largest=largest),
            progress,
        )
        settings = settings.model_copy(update={"batch_size": size["batch_size"]})
    return settings


def _choice(file: Path, choose: Callable[[], LevelChoice | BatchChoice], progress: Progress) -> dict[str, Any]:
    """Return a choice as JSON values: that of an earlier run, kept in ``file``, or a new one, which is reported and kept there."""

    def make() -> dict[str, Any]:
        choice = choose()
        progress.say(choice.as_text())
        return asdict(choice)

    values: dict[str, Any] = load_or_make(file, make, progress)
    return values


def _measure_statistics(
    estimator: StatisticsEstimator, class_names: Sequence[str], folder: Path, execution: Execution, progress: Progress
) -> KeptMixtures:
    """Return the Gaussians of each class, read from its file if an earlier run has finished it."""
    settings = estimator.settings
    finished = KeptMixtures(folder, class_names, settings.modes, settings.rank, progress)
    divisions = {name: estimator.division(name) for name in class_names}
    tasks = ClassChunks({name: divisions[name] for name in class_names if name not in finished})
    done = sum(divisions[name].images for name in class_names if name in finished)
    unfinished: dict[str, MergedChunks] = {}
    with progress.bar(_measuring(settings), sum(division.images for division in divisions.values())) as bar:
        bar.update(done)
        for index, statistics in execution.run(estimator, tasks):
            chunk = tasks[index]
            name = chunk.class_name
            merging = unfinished.setdefault(name, MergedChunks())
            merging.add(chunk, statistics)
            done += chunk.num_images
            bar.update(done, note=name)
            if merging.merged is not None and merging.images == divisions[name].images:
                finished.keep(name, merging.merged.mixture, merging.merged.error, settings.statistics_dtype)
                del unfinished[name]
    return finished  # read back from the disk, so that groups are drawn from what expand will see


def _merge_added(
    estimator: StatisticsEstimator,
    previous: DistilledSet,
    changes: Mapping[str, Change],
    folder: Path,
    execution: Execution,
    progress: Progress,
) -> None:
    """Finish the statistics of classes that have grown: those of the images that have come, merged with those of the set.

    Several modes, a rank and a sample need all images of a class: there nothing is done.
    """
    settings = estimator.settings
    added = {name: change.added for name, change in changes.items() if change.kind == "grown"}
    if not added or settings.modes > 1 or settings.rank or settings.subsampled or settings.forward_process != "inversion":
        return
    names = [*added]
    some = estimator.images.only({name: added.get(name, ()) for name in estimator.images.class_names}, f"added {digest_of(names)}")
    kept = _measure_statistics(replace(estimator, images=some), names, folder / "added", execution, progress)
    finished = KeptMixtures(folder / "statistics", estimator.images.class_names, settings.modes, settings.rank, progress)
    for name in names:
        if name not in finished:
            finished.keep(name, previous.mixtures[name].merge(kept[name]), StandardError(0.0, 0.0), settings.statistics_dtype)


def _samples(finished: KeptMixtures) -> dict[str, Sample]:
    """Return, per class, how many images the statistics come from, and their standard errors."""
    errors = {name: finished.error(name) for name in finished}
    return {name: Sample(images=finished[name].count, mean_error=error.mean, std_error=error.std) for name, error in errors.items()}
