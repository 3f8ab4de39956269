"""``d3hr update``: a set anew from data that have grown since."""

from __future__ import annotations

from pathlib import Path

from d3hr.cli.options import MEMORY, READING, RUNNING, Memory, Reading, Running
from d3hr.cli.origins import prior_named, prior_of_set
from d3hr.cli.output import Result, next_evaluation
from d3hr.fileio.names import sibling
from d3hr.progress import OnTerminal


def update(
    distilled: str,
    data: str,
    *,
    out: str | None = None,
    prior: str | None = None,
    teacher: str | None = None,
    device: str | None = None,
    split: str | None = None,
    reading: Reading = READING,
    running: Running = RUNNING,
    memory: Memory = MEMORY,
) -> Result:
    """Make a set anew from data that have grown: classes without new images stay as they are, and labels too.

    Args:
        distilled: a set that d3hr distill wrote
        data: the images that there are now, those of the set among them
        out: folder to write the new set to, by default SET-updated
        prior: folder or Hub id of the prior, by default where it was when the set was made
        teacher: folder of the teacher that images were chosen by, if there was one
        device: where everything is computed: cpu, cuda, cuda:1, mps; by default on the fastest there is
        split: train, validation, test, ...; by default that of the set
        reading: how images are read, where it differs from how the set's were
        running: where the work runs
        memory: how much memory it may hold
    """
    from d3hr.evaluation.teachers import Teacher
    from d3hr.fileio.staging import require_free_or_ours
    from d3hr.sets.distilled_set import DistilledSet
    from d3hr.updating import update as update_set

    place, execution, budget = out or str(sibling(distilled, "-updated")), running.chosen(), memory.budget()
    require_free_or_ours(place)
    source = DistilledSet.load(distilled)
    progress = OnTerminal()
    where = prior_named(distilled, source.manifest, prior)
    loaded = prior_of_set(source.manifest, where, progress=progress, device=device) if where else None
    images = reading.load(data, split or source.manifest.data.split, progress, record=source.manifest.data)
    made = update_set(
        source,
        images,
        loaded,
        place,
        teacher=Teacher.load(teacher, device=device) if teacher else None,
        execution=execution,
        memory_budget=budget,
        progress=progress,
    )
    text = f"{made.ipc} image(s) of each of {len(made.class_names)} classes in {place} (look at {place}/contact-sheet.png)."
    return Result(
        f"{text}\n{next_evaluation(place, images)}", {"out": place, "ipc": made.ipc, "classes": list(made.class_names)}, Path(place)
    )
