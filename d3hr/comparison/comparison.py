"""Puts sets side by side: the same student, protocol and test images for every row; each training is done once and kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d3hr.baselines.generation import prior_only
from d3hr.baselines.selection import random_real
from d3hr.data import ImageData
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import Evaluation
from d3hr.evaluation.scores import SEEDS, evaluate
from d3hr.evaluation.training import Run
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.staging import claim, write_json
from d3hr.storage import DistilledSet

BASELINES = {"random_real": "random real images", "prior_only": "images drawn from the prior alone"}
"""Methods that a distilled set is measured against, with their names in a sentence."""


@dataclass(frozen=True)
class Entry:
    """A set, and the seeds of the students to train on it."""

    distilled: DistilledSet
    seeds: Sequence[int]


def compare(
    entries: Sequence[Entry],
    test: ImageData,
    *,
    student: str,
    protocol: Protocol,
    cells: Path,
    image_size: int | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate every entry; entries of one method and IPC form one row, in order of first appearance.

    Args:
        entries: the sets.
        test: real images of the same classes.
        student: the network.
        protocol: how to train it.
        cells: folder that keeps the result of each training; what lies there is not trained again.
        image_size: side in pixels that students see; by default each set's own.
        progress: where to report.
    """
    cells.mkdir(parents=True, exist_ok=True)
    rows: dict[tuple[str, int], list[Run]] = {}
    total = sum(len(entry.seeds) for entry in entries)
    done = 0
    with progress.bar(f"training {student}", total) as bar:
        for entry in entries:
            manifest = entry.distilled.manifest
            row = rows.setdefault((manifest.method, manifest.ipc), [])
            for seed in entry.seeds:
                bar.update(done, note=f"{manifest.method}, IPC {manifest.ipc}")
                row.append(_cell(entry.distilled, test, student, protocol, seed, cells, image_size))
                done += 1
                bar.update(done)
    return [Evaluation(method, ipc, student, protocol, tuple(runs), image_size) for (method, ipc), runs in rows.items()]


def compare_with_baselines(
    subject: DistilledSet,
    test: ImageData,
    out: Path,
    *,
    real: ImageData | None,
    prior: Prior | None,
    student: str = "convnet3",
    protocol: Protocol,
    seeds: Sequence[int] = SEEDS,
    image_size: int | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate a set beside random real images and images drawn from its prior, of the same IPC and size.

    The set is trained on once a seed; each baseline is drawn anew for each seed and trained on once.

    Args:
        subject: the set.
        test: real images of the same classes.
        out: folder for baselines and results; an earlier run's are used again.
        real: what to draw real images from; None, or too few, leaves the row out.
        prior: what to draw prior-only images from; None leaves the row out.
        student: the network.
        protocol: how to train it.
        seeds: training seeds.
        image_size: side in pixels that students see, in training and in testing; by default the set's own.
        progress: where to report.

    Raises:
        OutputError: ``out`` holds something else.
    """
    claim(out, {"kind": "evaluation", "set": subject.manifest.model_dump(mode="json"), "test": test.fingerprint})
    manifest = subject.manifest
    entries = [Entry(subject, seeds)]
    if real is not None and min(real.counts.values()) < manifest.ipc:
        progress.say(f"no row of random real images: a class has fewer than {manifest.ipc} of them")
        real = None
    for seed in seeds:
        if real is not None:
            folder = out / "baselines" / f"random_real-ipc{manifest.ipc}-seed{seed}"
            entries.append(Entry(random_real(real, folder, ipc=manifest.ipc, image_size=manifest.image_size, seed=seed), [seed]))
        if prior is not None:
            folder = out / "baselines" / f"prior_only-ipc{manifest.ipc}-seed{seed}"
            guidance = float(manifest.settings.get("denoising_guidance", 1.0))
            known = manifest.conditioning if prior.fingerprint == manifest.prior.get("fingerprint") else None
            drawn = prior_only(prior, subject.class_names, folder, ipc=manifest.ipc, guidance_scale=guidance, conditioning=known, seed=seed)
            entries.append(Entry(drawn, [seed]))
    rows = compare(entries, test, student=student, protocol=protocol, cells=out / "cells", image_size=image_size, progress=progress)
    write_json(out / "results.json", [row.as_row() for row in rows])
    return rows


def verdicts(rows: Sequence[Evaluation]) -> list[str]:
    """Say in words, for each IPC, how the method stands beside each baseline."""
    lines = []
    for ours in (row for row in rows if row.method not in BASELINES):
        for method, name in BASELINES.items():
            for other in rows:
                if (other.method, other.ipc) == (method, ours.ipc):
                    lines.append(_verdict(ours, other, name))
    return lines


def _verdict(ours: Evaluation, other: Evaluation, name: str) -> str:
    gap = 100 * (ours.accuracy_mean - other.accuracy_mean)
    spread = 100 * math.hypot(ours.accuracy_std, other.accuracy_std)
    outcome = "wins" if gap > 0 else "loses"
    doubt = "" if abs(gap) > spread else ", within the spread of the seeds"
    return f"IPC {ours.ipc}: distilled {outcome} against {name} by {abs(gap):.1f} points{doubt}."


def _cell(
    distilled: DistilledSet, test: ImageData, student: str, protocol: Protocol, seed: int, cells: Path, image_size: int | None
) -> Run:
    about: dict[str, Any] = {
        "set": (distilled.path / "run.json").read_text(encoding="utf-8"),
        "test": test.fingerprint,
        "student": student,
        "protocol": protocol.model_dump(mode="json"),
        "training_seed": seed,
    }
    if image_size is not None:
        about["image_size"] = image_size
    manifest = distilled.manifest
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = cells / f"{manifest.method}-ipc{manifest.ipc}-{digest[:12]}.json"
    if not path.exists():
        run = evaluate(distilled, test, student=student, protocol=protocol, seeds=[seed], image_size=image_size).runs[0]
        write_json(
            path, {"method": manifest.method, "ipc": manifest.ipc, "set": str(distilled.path.name), "training_seed": seed, **asdict(run)}
        )
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Run(stored["last_epoch"], stored["best_epoch"])
