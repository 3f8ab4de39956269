"""``d3hr diagnose``: what is wrong with a distilled set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d3hr.cli.options import LOADING, READING, Reading, or_else, prior_of_set
from d3hr.cli.output import Result
from d3hr.errors import PriorError, SettingsError
from d3hr.progress import OnTerminal

if TYPE_CHECKING:
    from d3hr.evaluation.results import ResultRow
    from d3hr.prior.model import Prior
    from d3hr.sets.manifest import Manifest


def diagnose(
    distilled: str,
    *,
    data: str | None = None,
    split: str | None = None,
    prior: str | None = None,
    teacher: str | None = None,
    evaluation: Sequence[str] = (),
    space: Literal["pixel", "latent", "teacher"] | None = None,
    levels: int = 6,
    seed: int = 0,
    out: str | None = None,
    reading: Reading = READING,
) -> Result:
    """Say what is wrong with a distilled set: diversity, drift, transfer, cost, copies, normality of its latents.

    Args:
        distilled: a distilled set, or any folder of class folders
        data: the real images to hold it against, by default those the set was made from
        split: split of those images
        prior: the prior, by default the one the set was made with, if it is still there
        teacher: folder of a teacher, whose features images are then compared by
        evaluation: folder of 'd3hr evaluate' or 'd3hr compare', by default DISTILLED-evaluation; give the flag again for more
        space: what images are compared by; by default the teacher's features, else the prior's latents, else pixels
        levels: how many levels normality is tested at
        seed: seed of samples and projections
        out: folder for the result, by default DISTILLED-diagnosis
        reading: how images are read
    """
    from d3hr.diagnostics.diagnose import diagnose_once
    from d3hr.evaluation.teachers import Teacher
    from d3hr.sets.distilled_set import open_set

    progress = OnTerminal()
    subject = open_set(distilled)
    manifest = subject.manifest
    source = data or (manifest.data.source if manifest else None)
    if source is None:
        raise SettingsError("A diagnosis needs the real images.", found="no --data", hint="tell where they are with --data.")
    real_split = split or (manifest.data.split if manifest and data is None else None)
    with or_else("--data", "A diagnosis needs the images that the set was made from."):
        images = reading.load(source, real_split, progress)
    loaded = _prior(manifest, prior, progress)
    place = Path(distilled)
    folder = Path(out) if out else place.with_name(place.name + "-diagnosis")
    rows = [row for name in evaluation for row in _rows(Path(name))]
    if not evaluation:
        rows = _rows(place.with_name(place.name + "-evaluation"), required=False)
    diagnosis = diagnose_once(
        folder,
        subject,
        images,
        loaded,
        rows=rows,
        teacher=Teacher.load(teacher) if teacher else None,
        space=space,
        levels=levels,
        seed=seed,
        progress=progress,
    )
    return Result(f"{diagnosis.as_text()}\nKept in {folder}.", {"out": str(folder), **diagnosis.as_values()}, folder)


def _prior(manifest: Manifest | None, name: str | None, progress: OnTerminal) -> Prior | None:
    """Load the prior that is named or, if it is still there, the one that the set was made with."""
    where = name or (manifest.prior.source if manifest else None)
    if where is None:
        return None
    try:
        return prior_of_set(manifest, where, progress=progress) if manifest else LOADING.load(where, progress)
    except PriorError as error:
        if name:
            raise
        progress.say(f"left out: latents, normality, round trip and time, for want of the prior ({error.what}); give --prior")
        return None


def _rows(folder: Path, *, required: bool = True) -> list[ResultRow]:
    """Return the rows that an evaluation kept; none if there is none and it need not be there."""
    from d3hr.evaluation.results import read_results

    if not required and not (folder / "results.json").is_file():
        return []
    return read_results([folder])
