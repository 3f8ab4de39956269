"""Evaluates one set beside random real images and images drawn from its prior alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d3hr.baselines.generation import prior_only
from d3hr.baselines.selection import random_real
from d3hr.comparison.cells import Setting, identity
from d3hr.comparison.entries import Entry, compare_entries
from d3hr.comparison.tables import write_rows
from d3hr.data import ImageData
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import Evaluation
from d3hr.evaluation.scores import SEEDS
from d3hr.evaluation.teachers import Teacher
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.staging import claim
from d3hr.storage import DistilledSet


def compare_with_baselines(
    subject: DistilledSet | ImageData,
    test: ImageData,
    out: Path,
    *,
    real: ImageData | None,
    prior: Prior | None,
    student: str = "convnet3",
    protocol: Protocol,
    teacher: Teacher | None = None,
    seeds: Sequence[int] = SEEDS,
    image_size: int | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate a set beside random real images and images drawn from its prior, of the same IPC and size.

    The set is trained on once a seed; each baseline is drawn anew for each seed and trained on once.

    Args:
        subject: the set, of d3hr or any folder.
        test: real images of the same classes.
        out: folder for baselines and results; an earlier run's are used again.
        real: what to draw real images from; None, or too few, leaves the row out.
        prior: what to draw prior-only images from; None leaves the row out.
        student: the network.
        protocol: how to train it.
        teacher: gives soft labels, where the protocol asks for them.
        seeds: training seeds.
        image_size: side in pixels that students see, in training and in testing; by default the set's own.
        progress: where to report.

    Raises:
        OutputError: ``out`` holds something else.
    """
    about = subject.manifest.model_dump(mode="json") if isinstance(subject, DistilledSet) else identity(subject)
    with claim(out, {"kind": "evaluation", "set": about, "test": test.fingerprint}):
        names, ipc, side = subject.class_names, images_per_class(subject), _side(subject)
        entries = [Entry(subject, seeds)]
        if real is not None and min(real.counts.values()) < ipc:
            progress.say(f"no row of random real images: a class has fewer than {ipc} of them")
            real = None
        for seed in seeds:
            if real is not None:
                folder = out / "baselines" / f"random_real-ipc{ipc}-seed{seed}"
                entries.append(Entry(random_real(real, folder, ipc=ipc, image_size=side, seed=seed), [seed]))
            if prior is not None and isinstance(subject, DistilledSet):
                manifest = subject.manifest
                folder = out / "baselines" / f"prior_only-ipc{ipc}-seed{seed}"
                guidance = float(manifest.settings.get("denoising_guidance", 1.0))
                known = manifest.conditioning_in(prior.class_names) if prior.fingerprint == manifest.prior.get("fingerprint") else None
                drawn = prior_only(prior, names, folder, ipc=ipc, guidance_scale=guidance, conditioning=known, seed=seed)
                entries.append(Entry(drawn, [seed]))
        setting = Setting(student, protocol, teacher, image_size)
        rows = compare_entries(entries, test, [setting], cells=out / "cells", progress=progress)
        write_rows(out, rows, {})
        return rows


def images_per_class(distilled: DistilledSet | ImageData) -> int:
    """Return the IPC of a set; of a folder whose classes differ, the mean, rounded down."""
    return distilled.manifest.ipc if isinstance(distilled, DistilledSet) else len(distilled) // len(distilled.class_names)


def _side(distilled: DistilledSet | ImageData) -> int:
    return distilled.manifest.image_size if isinstance(distilled, DistilledSet) else distilled.image_size
