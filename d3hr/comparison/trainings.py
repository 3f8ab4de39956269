"""One training of one student on one set, done once: its result is kept under a key of all that decides it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from d3hr.data.dataset import ImageData
from d3hr.evaluation.evaluate import evaluate
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import Evaluation, TrainingResult
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import load_if_valid, read_json, write_json
from d3hr.fileio.checksums import digest_of
from d3hr.fileio.names import class_folders
from d3hr.progress import SILENT, Progress
from d3hr.sets.image_set import ImageSet


@dataclass(frozen=True)
class Setting:
    """What all cells of one row have in common beside the set.

    Attributes:
        student: the network.
        protocol: how to train it.
        teacher: gives soft labels, where the protocol asks for them.
        image_size: side in pixels that students see; None is the set's own.
    """

    student: str
    protocol: Protocol
    teacher: Teacher | None = None
    image_size: int | None = None


def evaluate_once(distilled: ImageSet, test: ImageData, setting: Setting, seed: int, folder: Path) -> Evaluation:
    """Return the evaluation of one training, from its file in ``folder`` or made now.

    Args:
        distilled: the set.
        test: real images of the same classes.
        setting: student, protocol, teacher and side.
        seed: training seed.
        folder: where results are kept.
    """
    about = _about(distilled, test, setting, seed)
    digest = digest_of(about)[:12]
    name = f"{setting.student}-{setting.protocol.name}"
    path = folder / f"{class_folders([name])[name]}-{digest}.json"  # a protocol's own file may call it anything
    found = load_if_valid(path, read_json)
    if found is None:
        made = evaluate(
            distilled,
            test,
            student=setting.student,
            protocol=setting.protocol,
            teacher=setting.teacher,
            seeds=[seed],
            image_size=setting.image_size,
            soft_label_file=folder / f"soft-labels-{_soft_label_key(about)}.safetensors",
        )
        write_json(path, {"about": about, "method": made.method, "ipc": made.ipc, **_figures(made)})
        found = read_json(path)
    run = found["run"]
    return Evaluation(
        found["method"],
        found["ipc"],
        setting.student,
        setting.protocol,
        (TrainingResult(**{**run, "confusion": tuple(tuple(row) for row in run["confusion"])}),),
        setting.image_size,
        class_names=tuple(found["class_names"]),
        teacher=found["teacher"],
        soft_label_bytes=found["soft_label_bytes"],
    )


def _about(distilled: ImageSet, test: ImageData, setting: Setting, seed: int) -> dict[str, Any]:
    return {
        "set": digest_of(distilled.identity),
        "test": test.fingerprint,
        "student": setting.student,
        "protocol": setting.protocol.model_dump(mode="json"),
        "teacher": setting.teacher.fingerprint if setting.teacher and setting.protocol.soft else None,
        "image_size": setting.image_size,
        "training_seed": seed,
    }


def _soft_label_key(about: dict[str, Any]) -> str:
    return digest_of([about[name] for name in ("set", "teacher", "image_size")])[:12]


def _figures(made: Evaluation) -> dict[str, Any]:
    return {
        "class_names": list(made.class_names),
        "teacher": made.teacher,
        "soft_label_bytes": made.soft_label_bytes,
        "run": asdict(made.runs[0]),
    }


@dataclass(frozen=True)
class Entry:
    """A set, and the seeds of the students to train on it.

    Attributes:
        distilled: the set.
        seeds: training seeds.
        name: what the table calls its row; by default its method.
    """

    distilled: ImageSet
    seeds: Sequence[int]
    name: str | None = None


def compare_entries(
    entries: Iterable[Entry],
    test: ImageData,
    settings: Sequence[Setting],
    *,
    folder: Path,
    total: int | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate every entry in every setting; entries of one name and IPC form one row a setting, in order of first appearance.

    Args:
        entries: the sets, which may be made as they are asked for.
        test: real images of the same classes.
        settings: students and protocols.
        folder: keeps the result of each training; a student whose result is there is not trained again.
        total: number of trainings, where the entries are not yet known.
        progress: where to report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[tuple[int, str, int], Evaluation] = {}
    if total is None:
        entries = list(entries)
        total = len(settings) * sum(len(entry.seeds) for entry in entries)
    done = 0
    with progress.bar("training students", total) as bar:
        for entry in entries:
            for index, setting in enumerate(settings):
                for seed in entry.seeds:
                    bar.update(done, note=_note(entry, setting))
                    cell = replace(evaluate_once(entry.distilled, test, setting, seed, folder), name=entry.name)
                    key = (index, entry.name or cell.method, cell.ipc)
                    known = rows.get(key)
                    rows[key] = cell if known is None else replace(known, runs=known.runs + cell.runs)
                    done += 1
                    bar.update(done, note=_note(entry, setting))
    return [rows[key] for key in sorted(rows, key=lambda key: key[0])]


def _note(entry: Entry, setting: Setting) -> str:
    return f"{entry.name or entry.distilled.method}, {setting.student}, {setting.protocol.name}"
