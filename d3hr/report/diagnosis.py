"""What a diagnosis kept: ``diagnosis.json``, where any number may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from d3hr.reading import validated_json

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
    return validated_json(folder / "diagnosis.json", _FILE, do="make it with 'd3hr diagnose'.")
