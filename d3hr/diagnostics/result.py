"""What a diagnosis kept: ``diagnosis.json``, where any number may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from d3hr.fileio.structured import validated_json

Number = float | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values


class Level(_Part):
    """Shares of dimensions that pass each test of normality at one level of the grid; ``_bh`` after Benjamini-Hochberg."""

    level: int
    timestep: Number = None
    shapiro: Number = None
    dagostino: Number = None
    anderson: Number = None
    shapiro_bh: Number = None
    dagostino_bh: Number = None
    anderson_bh: Number = None
    multivariate: Number = None


class Normality(_Part):
    """Normality of real latents by level, and the Shapiro share of each class at the same levels."""

    sample: str = ""
    levels: tuple[Level, ...] = ()
    classes: dict[str, tuple[Number, ...]] = {}


class Distance(_Part):
    """A distance of the set to the real images, beside that of real images of the same number."""

    distilled: Number = None
    reference_mean: Number = None
    reference_std: Number = None


class Support(_Part):
    """Precision, recall, density and coverage."""

    precision: Number = None
    recall: Number = None
    density: Number = None
    coverage: Number = None


class Coverage(Support):
    """Those of the set, and of real images of the same number."""

    reference: Support = Support()


class Diversity(_Part):
    """Diversity of the set and of real images of the same number."""

    distilled: Number = None
    real: Number = None


class Copying(_Part):
    """Distance to the nearest real image, in units of the distance among real images; the share below ``threshold`` counts as copied."""

    ratio_median: Number = None
    share_copied: Number = None
    threshold: Number = None


class RoundTrip(_Part):
    """Fidelity of inversion and denoising, beside that of the autoencoder alone."""

    psnr_db: Number = None
    autoencoder_psnr_db: Number = None
    images: int | None = None


class ClassFigures(_Part):
    """The same figures for one class."""

    mmd: Number = None
    precision: Number = None
    recall: Number = None
    density: Number = None
    coverage: Number = None
    diversity: Number = None
    diversity_real: Number = None
    nearest_ratio: Number = None


class Point(_Part):
    """One image in the plane."""

    x: Number = None
    y: Number = None
    class_name: str = Field(alias="class")
    kind: Literal["real", "distilled"]
    index: int


class Embedding(_Part):
    """Real and distilled images in two dimensions."""

    method: str = ""
    points: tuple[Point, ...] = ()


class Verdict(_Part):
    """Whether the set bears a known signature of failure."""

    signature: str
    status: Literal["ok", "warning", "failure", "unknown"]
    text: str = ""
    evidence: Any = ""


class Subject(_Part):
    """The set that was diagnosed."""

    path: str | None = None
    method: str | None = None
    ipc: int | None = None


class Reference(_Part):
    """The real images it was held against."""

    source: str | None = None
    fingerprint: str | None = None


class DiagnosisFile(_Part):
    """The whole of ``diagnosis.json``."""

    set: Subject = Subject()
    data: Reference = Reference()
    space: str = ""
    normality: Normality | None = None
    distances: dict[str, Distance] = {}
    coverage: Coverage | None = None
    diversity: Diversity | None = None
    copying: Copying | None = None
    round_trip: RoundTrip | None = None
    per_class: dict[str, ClassFigures] = {}
    embedding: Embedding | None = None
    verdicts: tuple[Verdict, ...] = ()


_FILE = TypeAdapter(DiagnosisFile)


def read_diagnosis(folder: Path) -> DiagnosisFile:
    """Return what ``folder/diagnosis.json`` says.

    Raises:
        ResultsError: the file is missing or damaged.
    """
    return validated_json(folder / "diagnosis.json", _FILE, hint="make it with 'd3hr diagnose'.")


_NAMES = {
    "mmd": "MMD (squared)",
    "sliced_wasserstein": "sliced Wasserstein",
    "sinkhorn": "Sinkhorn divergence",
    "frechet": "Frechet (squared)",
}


def as_text(values: Mapping[str, Any]) -> str:
    """Return what :meth:`Diagnosis.as_values <d3hr.diagnostics.diagnose.Diagnosis.as_values>` holds as text: verdicts, then figures."""
    subject, coverage = values["set"], values["coverage"]
    lines = [
        f"{subject['path']} ({subject['method']}, IPC {subject['ipc']}) against {values['data']['source']}, in {values['space']} space",
        "",
    ]
    for verdict in values["verdicts"]:
        lines += [f"[{verdict['status']}] {verdict['signature']}: {verdict['text']}", f"    {verdict['evidence']}"]
    lines += ["", f"{'':24s}{'this set':>10s}  random real images"]
    for name, distance in values["distances"].items():
        spread = "" if distance["reference_std"] is None else f" +- {_number(distance['reference_std'])}"
        lines.append(f"{_NAMES[name]:24s}{_number(distance['distilled']):>10s}  {_number(distance['reference_mean'])}{spread}")
    for name in ("precision", "recall", "density", "coverage"):
        lines.append(f"{name:24s}{_number(coverage[name]):>10s}  {_number(coverage['reference'][name])}")
    diversity, copying = values["diversity"], values["copying"]
    lines.append(f"{'diversity':24s}{_number(diversity['distilled']):>10s}  {_number(diversity['real'])}")
    lines.append(f"{'nearest real, ratio':24s}{_number(copying['ratio_median']):>10s}  1")
    if copying["share_copied"] is not None:
        lines.append(f"{'copies':24s}{100 * copying['share_copied']:>8.1f} %  (ratio under {copying['threshold']:.2f})")
    if trip := values["round_trip"]:
        alone = f"autoencoder alone {trip['autoencoder_psnr_db']:.1f} dB"
        lines.append(f"round trip of {trip['images']} real images {trip['psnr_db']:.1f} dB PSNR, {alone}")
    if normality := values["normality"]:
        lines += ["", f"share of latent dimensions that pass for Gaussian, 0.95 if they are ({normality['sample']})"]
        lines.append("level  timestep  Shapiro-Wilk  D'Agostino  Anderson-Darling  Henze-Zirkler")
        lines += [
            f"{row['level']:5d}  {row['timestep']:8d}  {row['shapiro']:12.2f}  {row['dagostino']:10.2f}  {row['anderson']:16.2f}  "
            f"{row['multivariate']:13.2f}"
            for row in normality["levels"]
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in values["notes"])])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
