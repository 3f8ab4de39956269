"""A diagnosis: typed figures and verdicts that write themselves to a folder and read themselves back.

OUT/diagnosis.json                              every figure and the verdicts
OUT/nearest/<class folder>/<index>.png          the nearest real image of each distilled one, named as in the set's ``train``;
                                                of a packed set, one for each tile, counted through the class
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, model_validator

from d3hr.data.codec import png_of_pixels, to_uint8
from d3hr.data.dataset import ImageData
from d3hr.diagnostics.checks import Verdict, transfer
from d3hr.diagnostics.distances import Distance
from d3hr.diagnostics.interpolation import Interpolation
from d3hr.diagnostics.neighbours import LabelAgreement, Support
from d3hr.diagnostics.normality import Normality
from d3hr.diagnostics.roundtrip import RoundTrip
from d3hr.diagnostics.sampling import Embedding
from d3hr.diagnostics.spaces import Array
from d3hr.evaluation.results import ResultRow
from d3hr.fileio.atomic import write_bytes, write_json
from d3hr.fileio.checksums import verify
from d3hr.fileio.staging import StagedFolder
from d3hr.fileio.structured import validated_json
from d3hr.formatting import number, percent
from d3hr.sets.packing import packed_in_words

FILE = "diagnosis.json"
_DISTANCE_NAMES = {
    "mmd": "MMD (squared)",
    "sliced_wasserstein": "sliced Wasserstein",
    "sinkhorn": "Sinkhorn divergence",
    "frechet": "Frechet (squared)",
}


@dataclass(frozen=True)
class ExaminedSet:
    """The set that was diagnosed: its path, the method that made it, its images per class, and the pictures along each side of one."""

    path: str | None = None
    method: str | None = None
    ipc: int | None = None
    pack: Annotated[int, Field(exclude_if=lambda factor: factor == 1)] = 1


@dataclass(frozen=True)
class RealImages:
    """The real images that it was compared with."""

    source: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Coverage(Support):
    """Precision, recall, density and coverage of the set, and of as many random real images (``reference``)."""

    reference: Support = field(default_factory=Support)


@dataclass(frozen=True)
class Diversity:
    """Mean distance between two images of one class, of the set and of real images."""

    distilled: float | None = None
    real: float | None = None


@dataclass(frozen=True)
class Copying:
    """Median distance to the nearest real image, in units of the usual distance among real images, and the share, 0 to 1, of distilled
    images whose ratio is below the threshold, which count as copied."""

    ratio_median: float | None = None
    share_copied: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class; :class:`Diagnosis` says what each of them is for the whole set."""

    mmd: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    diversity: float | None = None
    diversity_real: float | None = None
    nearest_ratio: float | None = None


@dataclass(frozen=True)
class NearestImages:
    """Class folder -> positions [K], among real images at the set's size, of the nearest one of each distilled image."""

    images: ImageData
    positions: Mapping[str, Array]

    def write(self, folder: Path) -> None:
        """Write them as ``<class folder>/<index>.png``."""
        for name, positions in self.positions.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for index, position in enumerate(positions.tolist()):
                pixels = to_uint8(self.images.gather([position])[0])[0]
                write_bytes(folder / name / f"{index:05d}.png", png_of_pixels(pixels))


class Diagnosis(BaseModel):
    """What was measured on a distilled set, and what follows from it. A figure that cannot be computed is None.

    Attributes:
        set: the set.
        data: the real images.
        space: the space that images were compared in: pixel, latent or teacher.
        normality: how Gaussian the latents of real images are at several levels; needs the prior.
        distances: name -> distance to the real images, of the set and of as many random real images.
        coverage: how the set and the real images overlap.
        diversity: mean distance within a class.
        labels: how the labels of the real images agree with their neighbours.
        copying: distance to the nearest real image.
        round_trip: what inversion and denoising keep of a real image; needs the prior.
        interpolation: whether images from between inverted latents are as good as those from noise; needs the prior.
        per_class: class name -> its figures.
        embedding: real and distilled images in the plane.
        verdicts: one for each known way in which distilled sets fail.
        notes: what was compared, and why figures are missing.
    """

    model_config = ConfigDict(frozen=True)

    set: ExaminedSet = ExaminedSet()
    data: RealImages = RealImages()
    space: str = ""
    normality: Normality | None = None
    distances: dict[str, Distance] = {}
    coverage: Coverage | None = None
    diversity: Diversity | None = None
    labels: LabelAgreement | None = None
    copying: Copying | None = None
    round_trip: RoundTrip | None = None
    interpolation: Interpolation | None = None
    per_class: dict[str, ClassFigures] = {}
    embedding: Embedding | None = None
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    _key: dict[str, Any] = PrivateAttr(default_factory=dict)
    _nearest: NearestImages | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values

    @classmethod
    def read(cls, folder: Path) -> Diagnosis:
        """Return the diagnosis that ``folder/diagnosis.json`` holds; the nearest real images remain in the folder.

        Raises:
            ResultsError: the file is missing or damaged.
        """
        return validated_json(folder / FILE, TypeAdapter(cls), hint="make it with 'd3hr diagnose'.")

    def with_source(self, key: dict[str, Any], nearest: NearestImages) -> Diagnosis:
        """Return the same diagnosis with what only a folder holds: the nearest real images, and as JSON values what decides the figures."""
        same = self.model_copy()
        same._key, same._nearest = key, nearest
        return same

    def with_evaluations(self, rows: Sequence[ResultRow]) -> Diagnosis:
        """Return the same figures with the verdict on transfer that these results of evaluations allow; no figure depends on them."""
        verdict = transfer(rows, self.set.method, self.set.ipc, self.set.pack)
        verdicts = [verdict if other.signature == verdict.signature else other for other in self.verdicts]
        return self.model_copy(update={"verdicts": tuple(verdicts)})

    @property
    def nearest(self) -> Mapping[str, Array]:
        """Class folder -> position, among the real images, of the nearest one of each distilled image; empty if read from a folder."""
        return self._nearest.positions if self._nearest else {}

    def save(self, folder: str | Path) -> None:
        """Write the folder, whole or not at all; one that holds this very diagnosis is left as it is.

        Raises:
            OutputError: the folder holds something else, or another run works there.
            DamagedFile: the folder is finished, but not what was written.
        """
        with StagedFolder(folder, self._key) as stage:
            if stage.finished:
                verify(folder)
            else:
                self.write(stage)

    def write(self, stage: StagedFolder) -> None:
        """Complete a staged folder and make it appear; only the file of figures may change later."""
        if self._nearest:
            self._nearest.write(stage.path / "nearest")
        self.write_figures(stage.path)
        stage.commit(mutable=[FILE])

    def write_figures(self, folder: Path) -> None:
        """Write ``folder/diagnosis.json``."""
        write_json(folder / FILE, self.as_values())

    def as_values(self) -> dict[str, Any]:
        """Return every figure and the verdicts as JSON values: six significant digits, None for what is unknown or not finite."""
        values: dict[str, Any] = _rounded(self.model_dump(by_alias=True))
        return values

    def as_text(self) -> str:
        """Return verdicts and figures as lines for people."""
        packed = f", {packed_in_words(self.set.pack)}" if self.set.pack > 1 else ""
        about = f"{self.set.path} ({self.set.method}, IPC {self.set.ipc}{packed}) against {self.data.source}, in {self.space} space"
        lines = [about, ""]
        for verdict in self.verdicts:
            lines.append(verdict.as_text())
        lines += ["", f"{'':24s}{'this set':>10s}  random real images"]
        lines += [f"{name:24s}{ours:>10s}  {reference}" for name, ours, reference in self._figures()]
        if trip := self.round_trip:
            both = f"{number(trip.psnr_db, '.1f')} dB PSNR, autoencoder alone {number(trip.autoencoder_psnr_db, '.1f')} dB"
            lines.append(f"round trip of {trip.images} real images {both}")
        if self.normality:
            lines += ["", f"share of latent dimensions that pass for Gaussian, 0.95 if they are ({self.normality.sample})"]
            lines.append("level  timestep  Shapiro-Wilk  D'Agostino  Anderson-Darling  Henze-Zirkler")
            for row in self.normality.levels:
                tests = ((row.shapiro, 12), (row.dagostino, 10), (row.anderson, 16), (row.multivariate, 13))
                shares = "  ".join(f"{number(share, '.2f'):>{width}s}" for share, width in tests)
                lines.append(f"{row.level:5d}  {number(row.timestep, '.0f'):>8s}  {shares}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _figures(self) -> list[tuple[str, str, str]]:
        """Return name, figure of the set and figure of random real images, as text."""
        rows = []
        for name, distance in self.distances.items():
            spread = "" if distance.reference_std is None else f" +- {number(distance.reference_std)}"
            reference = f"{number(distance.reference_mean)}{spread}"
            rows.append((_DISTANCE_NAMES.get(name, name), number(distance.distilled), reference))
        if self.coverage:
            for name in ("precision", "recall", "density", "coverage"):
                rows.append((name, number(getattr(self.coverage, name)), number(getattr(self.coverage.reference, name))))
        if self.diversity:
            rows.append(("diversity", number(self.diversity.distilled), number(self.diversity.real)))
        if self.copying:
            rows.append(("nearest real, ratio", number(self.copying.ratio_median), "1"))
            if self.copying.share_copied is not None:
                share = f"{percent(self.copying.share_copied)} %"
                rows.append(("copies", share, f"(ratio under {number(self.copying.threshold, '.2f')})"))
        return rows


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value
