"""A set that grows with its data: only what new images and classes change is made again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.errors import DistilledSetError, require_kind
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.pipeline import distill
from d3hr.prior.model import Prior
from d3hr.progress import BY_DEFAULT, Progress
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.growth import changes_since, in_order_of

WORDS = {"same": "as they were", "grown": "with more images", "changed": "with other images", "new": "new"}
"""Kind of a change -> what is said of its classes."""


def update(
    distilled: DistilledSet,
    images: ImageData,
    prior: Prior | None,
    out: str | Path,
    *,
    teacher: Teacher | None = None,
    execution: Execution = SERIAL,
    decoders: int = 0,
    memory_budget: int | None = None,
    progress: Progress = BY_DEFAULT,
) -> DistilledSet:
    """Make a set anew from data that have grown since, with the settings, prior and labels that it has.

    Classes whose images are the same keep their statistics and pictures, to the last byte: they are what :func:`~d3hr.distill` would make
    again. Of a class to which images were added, only these are inverted, and the statistics are merged (Chan et al.), unless it has
    several modes, a rank or a sample, which need all images. Old classes keep their labels; new ones follow.

    Args:
        distilled: the set.
        images: the images that there are now, those of the set among them.
        prior: the prior that the set was made with, if it was.
        out: folder to write.
        teacher: the teacher that images were chosen by, if there was one.
        execution: where the work runs.
        decoders: processes that read and decode images ahead, per worker.
        memory_budget: bytes that a search may hold; by default 256 MiB.
        progress: where to report.

    Raises:
        DistilledSetError: the set was made by another method than ``distill``, does not say which images it was made from, or has a class
            of which there are no images.
        PriorError: another prior than the set's.
        OutputError: ``out`` holds something else.
    """
    require_kind("images", images, ImageData, OPEN_IMAGES)
    manifest = distilled.manifest
    settings: dict[str, Any] = dict(manifest.settings)
    if "statistics_level" not in settings and settings.get("candidates") != "real":
        raise DistilledSetError(
            f"{distilled.path} cannot be updated.",
            found=f"a set of method {manifest.method!r}",
            hint="give a set written by 'd3hr distill'.",
        )
    if prior is not None and distilled.mixtures:
        distilled.require_prior(prior)
    images = in_order_of(distilled.class_names, images)
    changes = changes_since(distilled, images)
    counts = Counter(change.kind for change in changes.values())
    progress.say(", ".join(f"{count:,} class(es) {WORDS[kind]}" for kind, count in counts.items()))
    return distill(
        images,
        prior,
        out,
        teacher=teacher,
        ipc=manifest.ipc or int(settings["ipc"]),
        image_size=manifest.image_size if settings.get("candidates") == "real" else None,
        store="images" if manifest.ipc else "statistics",
        class_map={entry.name: entry.prior_class for entry in manifest.classes if entry.prior_class},
        execution=execution,
        decoders=decoders,
        memory_budget=memory_budget,
        previous=distilled,
        progress=progress,
        **{name: value for name, value in settings.items() if name != "ipc"},
    )
