"""Compares a distilled set with the real images that it was made from, and says what is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.diagnostics.checks import Verdict, cost, diversity_loss, doubtful_labels, drift, transfer
from d3hr.diagnostics.distances import Measures, distances, thinned
from d3hr.diagnostics.gate import prior_gate
from d3hr.diagnostics.interpolation import Interpolation, inexact_inversion, interpolation_test
from d3hr.diagnostics.neighbours import COPY_THRESHOLD, Support, diversity, label_agreement, mean_support, share_copied, support
from d3hr.diagnostics.normality import Normality, normality_by_level
from d3hr.diagnostics.result import ClassFigures, Copying, Coverage, Diagnosis, Diversity, ExaminedSet, NearestImages, RealImages
from d3hr.diagnostics.roundtrip import RoundTrip, round_trip
from d3hr.diagnostics.sampling import ClassSample, ClassSampler, class_samples, embedding, reference_draws
from d3hr.diagnostics.spaces import Array, SpaceName, feature_space, mean_of_known
from d3hr.distillation.levels import MIN_IMAGES, LatentSample
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import ClassMismatch, require_at_least, require_kind
from d3hr.evaluation.results import ResultRow
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.checksums import verify
from d3hr.fileio.locking import locked
from d3hr.fileio.names import class_folders
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.model import OPEN_PRIOR, Prior
from d3hr.progress import BY_DEFAULT, Progress
from d3hr.sets.image_set import ImageSet, pictures_of, require_images
from d3hr.sets.packing import packed_in_words


def diagnose(
    distilled: ImageSet,
    images: ImageData,
    prior: Prior | None = None,
    *,
    teacher: Teacher | None = None,
    rows: Sequence[ResultRow | Mapping[str, Any]] = (),
    space: SpaceName | None = None,
    levels: int = 6,
    seed: int = 0,
    execution: Execution = SERIAL,
    progress: Progress = BY_DEFAULT,
) -> Diagnosis:
    """Compare a distilled set with the real images that it was made from.

    A packed set is compared picture by picture, with real images at the side of its tiles.

    At most 500 real images of a class (or twice as many as are distilled, if that is more), and 20,000 of all, are compared; the nearest
    real images are searched among at most 5,000 of each class.

    Args:
        distilled: a distilled set, or any folder of class folders opened with :func:`d3hr.load_images` and its ``keep_duplicates``.
        images: the real images.
        prior: adds latent space, normality by level, the round trip, the time that inversion takes, whether the prior is good enough, and
            whether inversion finds its noise.
        teacher: adds the space of its features.
        rows: results of evaluations, as :meth:`~d3hr.evaluation.results.Evaluation.row` or ``as_row`` returns them.
        space: where images are compared, ``pixel``, ``latent`` or ``teacher``; by default ``teacher`` with a teacher, else ``latent`` with
            a prior, else ``pixel``.
        levels: at how many levels normality is tested.
        seed: seed of samples and projections.
        execution: where images are embedded, inverted and drawn, each class a task (:mod:`d3hr.execution`); no figure depends on it.
        progress: where to report.

    Raises:
        ClassMismatch: set and real images differ in their classes, or a class could be several of the prior's.
        DistilledSetError: the set holds statistics alone.
        SettingsError: the space lacks the prior or teacher that it needs, or ``levels`` is not positive.
        NumericalError: a feature or a latent is not finite.
    """
    key = _key(distilled, images, prior, teacher=teacher, space=space, levels=levels, seed=seed)
    where = feature_space(space, prior=prior, teacher=teacher)
    settings = distilled.manifest.distill_settings if distilled.manifest else None
    pictures = pictures_of(distilled)
    sized = images.at_size(pictures.image_size)
    with execution.session() as place:
        samples = class_samples(ClassSampler(pictures, sized, where, seed), place, progress)
        normality, trip, interpolated, gate = _through_the_prior(
            distilled, settings, images, prior, teacher, levels, seed, execution=place, progress=progress
        )
    real = np.concatenate([sample.real for sample in samples])
    ours = np.concatenate([sample.distilled for sample in samples])
    with progress.bar("measuring distances", 2) as bar:
        measured = distances(real, ours, reference_draws(samples, seed), seed)
        bar.update(1)
        covered, reference = _coverage(real, ours, reference_draws(samples, seed))
        bar.update(2)
    measures = Measures(real, seed)  # one kernel for all classes, whose figures are compared
    per_class = {sample.name: _class_figures(sample, measures) for sample in samples}
    spread = Diversity(
        distilled=mean_of_known(figures.diversity for figures in per_class.values()),
        real=mean_of_known(figures.diversity_real for figures in per_class.values()),
    )
    labels = label_agreement([sample.real for sample in samples])
    verdicts = (
        transfer([ResultRow.model_validate(row) for row in rows], distilled.method, distilled.ipc, distilled.pack),
        diversity_loss(spread.distilled, spread.real, covered, reference),
        drift(measured, normality, settings),
        cost(distilled.method, settings, len(images), trip.seconds_per_image if trip else None),
        doubtful_labels(labels, where.about),
        *([gate] if gate else []),
        *([inexact_inversion(interpolated)] if interpolated else []),
    )
    diagnosis = Diagnosis(
        set=ExaminedSet(distilled.source, distilled.method, distilled.ipc, distilled.pack),
        data=RealImages(images.source, images.fingerprint),
        space=where.name,
        normality=normality,
        distances=measured,
        coverage=Coverage(**asdict(covered), reference=reference or Support()),
        diversity=spread,
        labels=labels,
        copying=_copying(samples),
        round_trip=trip,
        interpolation=interpolated,
        per_class=per_class,
        embedding=embedding(samples),
        verdicts=verdicts,
        notes=(*_notes(samples, where.about, reference, normality, prior), *_notes_on_packing(distilled)),
    )
    folders = class_folders(distilled.class_names)
    nearest = NearestImages(sized, {folders[sample.name]: sample.nearest_positions for sample in samples})
    return diagnosis.with_source(key, nearest)


class Choices(TypedDict, total=False):
    """The optional arguments of :func:`diagnose` that decide its figures."""

    teacher: Teacher | None
    space: SpaceName | None
    levels: int
    seed: int


def diagnose_once(
    folder: Path,
    distilled: ImageSet,
    images: ImageData,
    prior: Prior | None = None,
    *,
    rows: Sequence[ResultRow] = (),
    execution: Execution = SERIAL,
    progress: Progress = BY_DEFAULT,
    **choices: Unpack[Choices],
) -> Diagnosis:
    """Return the diagnosis that ``folder`` holds, or make it there; the verdict on transfer follows ``rows`` in either case.

    The other arguments are those of :func:`diagnose`.
    """
    with StagedFolder(folder, _key(distilled, images, prior, **choices)) as stage:
        if not stage.finished:
            diagnose(distilled, images, prior, rows=rows, execution=execution, progress=progress, **choices).write(stage)
    verify(folder)
    with locked(folder, wait=True):
        kept = Diagnosis.read(folder)
        current = kept.with_evaluations(rows)
        if current != kept:
            current.write_figures(folder)
    return current


def _key(
    distilled: ImageSet,
    images: ImageData,
    prior: Prior | None,
    *,
    teacher: Teacher | None = None,
    space: SpaceName | None = None,
    levels: int = 6,
    seed: int = 0,
) -> dict[str, Any]:
    """Check the arguments of :func:`diagnose` and return what decides its figures, as JSON values."""
    require_at_least("--levels", levels)
    require_images(distilled)
    require_kind("images", images, ImageData, OPEN_IMAGES)
    if prior is not None:
        require_kind("prior", prior, Prior, OPEN_PRIOR)
    ClassMismatch.unless_same("the distilled set", distilled.class_names, f"the real images {images.source}", images.class_names)
    if teacher:
        teacher.require_classes(distilled.class_names, "the distilled set")
    return {
        "kind": "diagnosis",
        "set": distilled.identity,
        "data": images.fingerprint,
        "prior": prior.fingerprint if prior else None,
        "teacher": teacher.fingerprint if teacher else None,
        "space": feature_space(space, prior=prior, teacher=teacher).name,
        "levels": levels,
        "seed": seed,
    }


def _coverage(real: Array, ours: Array, draws: Iterator[tuple[Array, Array]]) -> tuple[Support, Support | None]:
    """Return the coverage of the set and of random real images, both of the real images that the draws leave over."""
    of_ours, of_subsets = [], []
    for subset, rest in draws:
        few = thinned(rest)
        of_ours.append(support(few, thinned(ours)))
        of_subsets.append(support(few, thinned(subset)))
    if not of_ours:
        return support(thinned(real), thinned(ours)), None
    return mean_support(of_ours), mean_support(of_subsets)


def _class_figures(sample: ClassSample, measures: Measures) -> ClassFigures:
    return ClassFigures(
        mmd=measures.mmd(sample.distilled, sample.real),
        **asdict(support(sample.real, sample.distilled)),
        diversity=diversity(sample.distilled),
        diversity_real=diversity(sample.real),
        nearest_ratio=None if sample.nearest_ratios is None else float(np.median(sample.nearest_ratios)),
    )


def _copying(samples: Sequence[ClassSample]) -> Copying:
    of_classes = [sample.nearest_ratios for sample in samples if sample.nearest_ratios is not None]
    if not of_classes:
        return Copying(threshold=COPY_THRESHOLD)
    ratios = np.concatenate(of_classes)
    return Copying(float(np.median(ratios)), share_copied(ratios), COPY_THRESHOLD)


def _through_the_prior(
    distilled: ImageSet,
    settings: DistillSettings | None,
    images: ImageData,
    prior: Prior | None,
    teacher: Teacher | None,
    levels: int,
    seed: int,
    *,
    execution: Execution,
    progress: Progress,
) -> tuple[Normality | None, RoundTrip | None, Interpolation | None, Verdict | None]:
    """Return what needs a prior, computed with the set's own settings or, if it has none, the paper's, and the verdict on the prior.

    The prior's classes are those the set was made with, if this is that prior, else those of the same names, if any.
    """
    if prior is None:
        return None, None, None, None
    conditioning: Sequence[Conditioning]
    if distilled.manifest and prior.fingerprint == distilled.manifest.prior.fingerprint:
        conditioning = distilled.manifest.conditioning_in(prior.class_names)
    else:
        conditioning = prior.denoiser.match(images.class_names, of=images.source, allow_missing=True)
    if not conditioning:
        return None, None, None, None
    settings = settings or distill_settings("paper")
    sized = images.at_size(prior.image_size)
    sample = LatentSample.choose(sized, prior, conditioning)
    normality = normality_by_level(sample, prior, settings, levels, seed, execution, progress) if sample else None
    with progress.bar("drawing from the prior", 1) as bar:
        gate = prior_gate(prior, sized, conditioning=conditioning, teacher=teacher, seed=seed, execution=execution)
        bar.update(1)
    with progress.bar("denoising from between inverted images", 1) as bar:
        interpolated = interpolation_test(sized, prior, conditioning, settings, teacher, seed, execution)
        bar.update(1)
    return normality, round_trip(sized, prior, conditioning, settings), interpolated, gate


def _notes_on_packing(distilled: ImageSet) -> list[str]:
    if distilled.pack == 1:
        return []
    side = pictures_of(distilled).image_size
    return [f"{packed_in_words(distilled.pack)}: each of them is compared on its own, at {side} px, as are the real images"]


def _notes(
    samples: Sequence[ClassSample], about: str, reference: Support | None, normality: Normality | None, prior: Prior | None
) -> list[str]:
    """Say what was compared, and why figures are missing."""
    real, searched = sum(len(sample.real) for sample in samples), sum(sample.searched for sample in samples)
    notes = [
        f"space: {about}, shifted and scaled so that the real images have mean 0 and mean squared norm 1",
        f"{real:,} real images compared; nearest ones looked for among {searched:,}",
    ]
    if any(len(sample.distilled) < 2 for sample in samples):
        notes.append("a class of one distilled image has no diversity, recall or MMD of its own")
    if reference is None:
        notes.append("no reference: a class has fewer than twice as many real images as distilled ones")
    if any(len(sample.real) < 2 for sample in samples):
        notes.append("a class of one real image has no nearest-neighbour distance, coverage or MMD of its own")
    if prior and normality is None:
        notes.append(f"no normality: no class that the prior knows has {MIN_IMAGES} real images")
    return notes
