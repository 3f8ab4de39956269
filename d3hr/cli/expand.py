"""``d3hr expand``: another number of images per class, from statistics alone."""

from pathlib import Path

from d3hr.cli.options import MEMORY, RUNNING, Memory, Running
from d3hr.cli.origins import prior_named, prior_of_set
from d3hr.cli.output import Result, next_evaluation
from d3hr.distillation.overrides import AS_THE_SET, ExpandOverrides
from d3hr.errors import PriorError
from d3hr.progress import OnTerminal


def expand(
    distilled: str,
    *,
    out: str,
    ipc: int,
    prior: str | None = None,
    device: str | None = None,
    drawing: ExpandOverrides = AS_THE_SET,
    running: Running = RUNNING,
    memory: Memory = MEMORY,
) -> Result:
    """Make a set of another IPC from the statistics of a distilled set; no real image is needed.

    Args:
        distilled: a distilled set
        out: folder to write the new set to
        ipc: images per class
        prior: folder or Hub id of the prior, by default where it was when the set was made; precision and autoencoder are the set's
        device: where everything is computed: cpu, cuda, cuda:1, mps; by default on the fastest there is
        drawing: settings of grouping and denoising that differ from those of the set
        running: where the work runs
        memory: how much memory it may hold
    """
    from d3hr.fileio.staging import require_free_or_ours
    from d3hr.pipeline import expand as expand_set
    from d3hr.sets.distilled_set import DistilledSet

    execution, budget = running.chosen(), memory.budget()
    require_free_or_ours(out)
    source = DistilledSet.load(distilled)
    source.require_statistics()
    where = prior_named(distilled, source.manifest, prior)
    if where is None:
        raise PriorError("The set does not say which prior it was made with.", found="no prior in its manifest", hint="give --prior.")
    progress = OnTerminal()
    loaded = prior_of_set(source.manifest, where, progress=progress, device=device)
    expanded = expand_set(source, loaded, out, ipc=ipc, execution=execution, memory_budget=budget, progress=progress, **drawing.options)
    values = {"out": out, "ipc": ipc, "classes": list(expanded.class_names), "settings": expanded.manifest.settings}
    text = f"{ipc} image(s) of each of {len(expanded.class_names)} classes in {out} (look at {out}/contact-sheet.png)."
    return Result(f"{text}\n{next_evaluation(out)}", values, Path(out))
