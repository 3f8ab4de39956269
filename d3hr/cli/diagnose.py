"""``d3hr diagnose``: what is wrong with a distilled set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from d3hr.cli.options import LOADING, READING, RUNNING, Reading, Running
from d3hr.cli.origins import data_of_set, prior_named, prior_of_set
from d3hr.cli.output import Result, evaluation_folders
from d3hr.errors import PriorError, SettingsError
from d3hr.fileio.names import sibling
from d3hr.progress import OnTerminal

if TYPE_CHECKING:
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
    device: str | None = None,
    out: str | None = None,
    reading: Reading = READING,
    running: Running = RUNNING,
) -> Result:
    """Say what is wrong with a distilled set: diversity, drift, transfer, cost, copies, normality of its latents.

    Args:
        distilled: a distilled set, or any folder of class folders
        data: the real images to compare it with, by default those the set was made from
        split: split of those images
        prior: the prior, by default the one the set was made with, if it is still there
        teacher: folder of a teacher, by whose features images are then compared
        evaluation: folder of 'd3hr evaluate' or 'd3hr compare', by default DISTILLED-evaluation; give the flag again for more
        space: the space in which images are compared; by default the teacher's features, else the prior's latents, else pixels
        levels: number of levels at which normality is tested
        seed: seed of samples and projections
        device: where everything is computed: cpu, cuda, cuda:1, mps; by default on the fastest there is
        out: folder for the result, by default DISTILLED-diagnosis
        reading: how images are read
        running: where images are compared, inverted and drawn: each class is a task
    """
    from d3hr.diagnostics.diagnose import diagnose_once
    from d3hr.evaluation.results import read_results
    from d3hr.evaluation.teachers import Teacher
    from d3hr.sets.distilled_set import open_set

    execution, progress = running.chosen(), OnTerminal()
    subject = open_set(distilled)
    manifest = subject.manifest
    images = data_of_set(distilled, subject, data, split, reading, progress)
    if images is None:
        raise SettingsError("A diagnosis needs the real images.", found="no --data", hint="give their place with --data.")
    loaded = _prior(distilled, manifest, prior, progress)
    folder = Path(out) if out else sibling(distilled, "-diagnosis")
    diagnosis = diagnose_once(
        folder,
        subject,
        images,
        loaded,
        rows=read_results(evaluation_folders(evaluation, distilled)),
        teacher=Teacher.load(teacher) if teacher else None,
        space=space,
        levels=levels,
        seed=seed,
        execution=execution,
        progress=progress,
    )
    return Result(f"{diagnosis.as_text()}\nKept in {folder}.", {"out": str(folder), **diagnosis.as_values()}, folder)


def _prior(distilled: str, manifest: Manifest | None, name: str | None, progress: OnTerminal) -> Prior | None:
    """Load the prior that is named or, if it is still there, the one that the set was made with."""
    where = prior_named(distilled, manifest, name)
    if where is None:
        return None
    try:
        return prior_of_set(manifest, where, progress=progress) if manifest else LOADING.load(where, progress)
    except PriorError as error:
        if name:
            raise
        progress.say(f"left out: latents, normality, round trip and time, for want of the prior ({error.what}); give --prior")
        return None
