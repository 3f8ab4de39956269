"""Holds a distilled set against the real images it stands for, and says what is wrong with it.

OUT/diagnosis.json                              every figure and the verdicts
OUT/nearest/<class folder>/<index>.png          the nearest real image of each distilled one, named as in the set's ``train``
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d3hr.data.codec import png_of_pixels, to_uint8
from d3hr.data.dataset import ImageData
from d3hr.diagnostics.checks import Row, cost, diversity_loss, doubtful_labels, drift, transfer
from d3hr.diagnostics.distances import MOST_POINTS, Measures, distances, thinned
from d3hr.diagnostics.neighbours import COPY_THRESHOLD, Support, diversity, label_agreement, mean_support, share_copied, support
from d3hr.diagnostics.normality import Normality, normality_by_level
from d3hr.diagnostics.result import as_text
from d3hr.diagnostics.roundtrip import RoundTrip, round_trip
from d3hr.diagnostics.sampling import ClassSample, class_samples, embedding, first_positions, pooled, reference_draws
from d3hr.diagnostics.spaces import Array, SpaceName, feature_space
from d3hr.distillation.levels import MIN_IMAGES, LatentSample
from d3hr.distillation.settings import DistillSettings, distill_settings
from d3hr.errors import ClassMismatch, SettingsError
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import write_bytes, write_json
from d3hr.fileio.checksums import verify
from d3hr.fileio.names import class_folders
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.class_matching import Conditioning, match_classes
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed
from d3hr.sets.image_set import ImageSet, require_images

FILE = "diagnosis.json"
"""Figures and verdicts; those that hang on evaluations may come later."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about a distilled set.

    Attributes:
        values: every figure and the verdicts, as JSON values.
        key: what they are made from, as JSON values.
        images: the real images, at the set's size.
        nearest: class folder -> where the nearest real image of each distilled one stands in ``images``, int64 [K].
    """

    values: dict[str, Any]
    key: dict[str, Any]
    images: ImageData
    nearest: Mapping[str, Array]

    def as_values(self) -> dict[str, Any]:
        """Return every figure and the verdicts as JSON values; a figure that cannot be had is None, never NaN."""
        return self.values

    def as_text(self) -> str:
        """Return the verdicts and figures as lines for people."""
        return as_text(self.values)

    def save(self, folder: str | Path) -> None:
        """Write the folder, whole or not at all; one that holds this very diagnosis is left as it is.

        Raises:
            OutputError: the folder holds something else, or another run works there.
            DamagedFile: the folder is finished, but not what was written.
        """
        with StagedFolder(folder, self.key) as stage:
            if stage.finished:
                verify(folder)
            else:
                self.write(stage)

    def write(self, stage: StagedFolder) -> None:
        """Complete a staged folder and make it appear."""
        for name, positions in self.nearest.items():
            place = stage.path / "nearest" / name
            place.mkdir(parents=True, exist_ok=True)
            for index, position in enumerate(positions.tolist()):
                pixels = to_uint8(self.images.gather([position])[0])[0]
                write_bytes(place / f"{index:05d}.png", png_of_pixels(pixels))
        write_json(stage.path / FILE, self.values)
        stage.commit(mutable=[FILE])


def diagnose(
    distilled: ImageSet,
    images: ImageData,
    prior: Prior | None = None,
    *,
    teacher: Teacher | None = None,
    rows: Sequence[Row] = (),
    space: SpaceName | None = None,
    levels: int = 6,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Diagnosis:
    """Compare a distilled set with the real images it stands for.

    At most 500 real images of a class (or twice as many as are distilled, if that is more), and 20,000 of all, are compared; nearest real
    images are looked for among at most 5,000 of each class.

    Args:
        distilled: a distilled set, or any folder of class folders opened with :func:`d3hr.load_images`.
        images: the real images.
        prior: adds latent space, normality by level, the round trip and the time that inversion takes.
        teacher: adds the space of its features.
        rows: results of evaluations, as :meth:`~d3hr.evaluation.evaluate.Evaluation.as_row` gives them.
        space: where images are compared, ``pixel``, ``latent`` or ``teacher``; by default the last for which there is what it needs.
        levels: how many levels normality is tested at.
        seed: seed of samples and projections.
        progress: where to report.

    Raises:
        ClassMismatch: set and real images differ in their classes, or a class could be several of the prior's.
        DistilledSetError: the set holds statistics alone.
        SettingsError: the space lacks what it needs, or ``levels`` is not positive.
        NumericalError: a feature or a latent is not finite.
    """
    key = diagnosis_key(distilled, images, prior, teacher=teacher, space=space, levels=levels, seed=seed)
    where = feature_space(space, prior=prior, teacher=teacher)
    settings = distilled.manifest.distill_settings if distilled.manifest else None
    sized = images.at_size(distilled.image_size)
    samples = class_samples(distilled, sized, where, seed, progress)
    measures = Measures(pooled([sample.real for sample in samples]), derive_seed(seed, "projections") % 2**32)
    ours = pooled([sample.distilled for sample in samples])
    with progress.bar("measuring distances", 2) as bar:
        found = distances(measures, ours, reference_draws(samples, seed))
        bar.update(1)
        covered, reference = _coverage(measures.real, ours, reference_draws(samples, seed))
        bar.update(2)
    per_class = {sample.name: _class_figures(sample, seed) for sample in samples}
    labels = label_agreement([sample.real for sample in samples])
    normality, trip = _through_the_prior(distilled, settings, images, prior, levels, seed, progress)
    spread = {
        name: _mean([values[column] for values in per_class.values()])
        for name, column in (("distilled", "diversity"), ("real", "diversity_real"))
    }
    verdicts = (
        transfer(rows, distilled.method, distilled.ipc),
        diversity_loss(spread["distilled"], spread["real"], covered, reference),
        drift(found, normality, settings),
        cost(distilled.method, settings, len(images), trip.seconds_an_image if trip else None),
        doubtful_labels(labels, where.about),
    )
    ratios = [sample.nearest_ratios for sample in samples if sample.nearest_ratios is not None]
    values = {
        "set": {"path": distilled.source, "method": distilled.method, "ipc": distilled.ipc},
        "data": {"source": images.source, "fingerprint": images.fingerprint},
        "space": where.name,
        "normality": normality.as_values() if normality else None,
        "distances": {name: asdict(distance) for name, distance in found.items()},
        "coverage": {**asdict(covered), "reference": asdict(reference or Support())},
        "diversity": spread,
        "labels": asdict(labels),
        "copying": {
            "ratio_median": float(np.median(pooled(ratios))) if ratios else None,
            "share_copied": share_copied(pooled(ratios)) if ratios else None,
            "threshold": COPY_THRESHOLD,
        },
        "round_trip": {"psnr_db": trip.psnr_db, "autoencoder_psnr_db": trip.autoencoder_psnr_db, "images": trip.images} if trip else None,
        "per_class": per_class,
        "embedding": embedding(samples, first_positions(sized)),
        "verdicts": [verdict.as_values() for verdict in verdicts],
        "notes": _notes(samples, where.about, reference, normality, prior),
    }
    folders = class_folders(distilled.class_names)
    nearest = {folders[sample.name]: sample.nearest_positions for sample in samples}
    return Diagnosis(_rounded(values), key, sized, nearest)


def with_evaluations(values: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return a diagnosis with the verdict on transfer that further evaluations allow; its figures do not depend on them."""
    verdict = transfer(rows, values["set"]["method"], values["set"]["ipc"]).as_values()
    others = [verdict if known["signature"] == verdict["signature"] else known for known in values["verdicts"]]
    return {**values, "verdicts": others}


def diagnosis_key(
    distilled: ImageSet,
    images: ImageData,
    prior: Prior | None = None,
    *,
    teacher: Teacher | None = None,
    space: SpaceName | None = None,
    levels: int = 6,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what decides the figures of a diagnosis, as JSON values; the arguments are those of :func:`diagnose`, and are checked.

    Raises:
        ClassMismatch, DistilledSetError, SettingsError: as :func:`diagnose` does.
    """
    if levels < 1:
        raise SettingsError("--levels must be positive.", found=f"{levels}", hint="give at least 1.")
    require_images(distilled)
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
    """Return the coverage of the set and of random real images, both against what the draws leave over."""
    of_ours, of_subsets = [], []
    for subset, rest in draws:
        few = thinned(rest, MOST_POINTS)
        of_ours.append(support(few, thinned(ours, MOST_POINTS)))
        of_subsets.append(support(few, thinned(subset, MOST_POINTS)))
    if not of_ours:
        return support(thinned(real, MOST_POINTS), thinned(ours, MOST_POINTS)), None
    return mean_support(of_ours), mean_support(of_subsets)


def _class_figures(sample: ClassSample, seed: int) -> dict[str, float | None]:
    return {
        "mmd": Measures(sample.real, seed).mmd(sample.real, sample.distilled),
        **asdict(support(sample.real, sample.distilled)),
        "diversity": diversity(sample.distilled),
        "diversity_real": diversity(sample.real),
        "nearest_ratio": None if sample.nearest_ratios is None else float(np.median(sample.nearest_ratios)),
    }


def _through_the_prior(
    distilled: ImageSet,
    settings: DistillSettings | None,
    images: ImageData,
    prior: Prior | None,
    levels: int,
    seed: int,
    progress: Progress,
) -> tuple[Normality | None, RoundTrip | None]:
    """Return what only a prior can tell, with the set's own settings or, if it has none, the paper's."""
    conditioning = _conditioning(distilled, images, prior) if prior else ()
    if prior is None or not conditioning:
        return None, None
    settings = settings or distill_settings("paper")
    sized = images.at_size(prior.image_size)
    sample = LatentSample.choose(sized, prior, conditioning)
    normality = normality_by_level(sample, prior, settings, levels, seed, progress) if sample else None
    return normality, round_trip(sized, prior, conditioning, settings)


def _conditioning(distilled: ImageSet, images: ImageData, prior: Prior) -> Sequence[Conditioning]:
    """Return the prior's classes: those the set was made with, if this is that prior, else those of the same names, if any."""
    manifest = distilled.manifest
    if manifest and prior.fingerprint == manifest.prior.fingerprint:
        return manifest.conditioning_in(prior.class_names)
    return match_classes(images.class_names, prior.class_names, of=images.source, allow_missing=True)


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


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _rounded(value: Any) -> Any:
    """Return JSON values with floats of six significant digits; what is not finite becomes None."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value
