"""One training of one student on one set, done once: its result is kept under a key of all that decides it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from d3hr.data.dataset import ImageData
from d3hr.evaluation.evaluate import evaluate
from d3hr.evaluation.images import StudentImages
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import Evaluation
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import load_if_valid, read_json, write_json
from d3hr.fileio.checksums import digest_of
from d3hr.fileio.names import class_folders
from d3hr.progress import SILENT, Progress, Within
from d3hr.sets.image_set import ImageSet


@dataclass(frozen=True)
class Setting:
    """How the students of one row are trained; they see images of ``image_size`` pixels a side, or of the set's own."""

    student: str
    protocol: Protocol
    teacher: Teacher | None = None
    image_size: int | None = None


_KEPT = ("method", "ipc", "class_names", "teacher", "soft_label_bytes")
"""Fields of an evaluation that its file holds; the others are those of the setting."""
_EVALUATION = TypeAdapter(Evaluation)


def evaluate_once(
    distilled: ImageSet, test: ImageData | StudentImages, setting: Setting, seed: int, folder: Path, progress: Progress = SILENT
) -> Evaluation:
    """Return the evaluation of one training: from its file in ``folder``, or by training now and writing it."""
    about = _about(distilled, test.test if isinstance(test, StudentImages) else test, setting, seed)
    name = f"{setting.student}-{setting.protocol.name}"
    path = folder / f"{class_folders([name])[name]}-{digest_of(about)[:12]}.json"  # a protocol's own file may call it anything
    kept = load_if_valid(path, read_json)
    if kept is None:
        labelled = [about[field] for field in ("set", "teacher", "image_size", "resize") if field in about]
        cropped = [True] if setting.protocol.crop_stored else []  # a teacher labels the images as they are before they are cropped
        soft_labels = digest_of([*labelled, *cropped])[:12]
        file = folder / f"soft-labels-{soft_labels}.safetensors"
        evaluation = evaluate(distilled, test, seeds=[seed], soft_label_file=file, progress=progress, **vars(setting))
        kept = {"about": about, **{field: getattr(evaluation, field) for field in _KEPT}, "run": asdict(evaluation.runs[0])}
        write_json(path, kept)
    given = {"student": setting.student, "protocol": setting.protocol, "image_size": setting.image_size, "pack": distilled.pack}
    return _EVALUATION.validate_python({**{field: kept[field] for field in _KEPT}, **given, "runs": [kept["run"]]})


def _about(distilled: ImageSet, test: ImageData, setting: Setting, seed: int) -> dict[str, Any]:
    # Trainings on images that an earlier version resized by another filter are not used again.
    resize = {} if setting.image_size in (None, distilled.image_size) else {"resize": "bicubic"}
    return {
        "set": digest_of(distilled.identity),
        "test": test.fingerprint,
        "student": setting.student,
        "protocol": setting.protocol.model_dump(mode="json"),
        "teacher": setting.teacher.fingerprint if setting.teacher and setting.protocol.soft else None,
        "image_size": setting.image_size,
        "training_seed": seed,
        **resize,
    }


@dataclass(frozen=True)
class Entry:
    """A set, the seeds of the students to train on it, and the name of its row in a table; by default its method."""

    distilled: ImageSet
    seeds: Sequence[int]
    name: str | None = None


def compare_entries(
    entries: Iterable[Entry],
    test: ImageData | StudentImages,
    settings: Sequence[Setting],
    *,
    folder: Path,
    total: int | None = None,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate every entry in every setting; entries of one name, IPC and packing form one row per setting, in order of first appearance.

    The sets may be made one by one when their turn comes; ``total`` is then the number of trainings. A student whose result is in the
    folder is not trained again. Test images are decoded once, and those of a set are released when its last student is trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen = test if isinstance(test, StudentImages) else StudentImages(test)
    rows: dict[tuple[int, str, int, int], Evaluation] = {}
    if total is None:
        entries = list(entries)
        total = len(settings) * sum(len(entry.seeds) for entry in entries)
    done = 0
    with progress.bar("training students", total) as bar:
        for entry in entries:
            for index, setting in enumerate(settings):
                note = f"{entry.name or entry.distilled.method}, {setting.student}, {setting.protocol.name}"
                for seed in entry.seeds:
                    bar.update(done, note=note)
                    evaluation = evaluate_once(entry.distilled, seen, setting, seed, folder, Within(bar, done, 1, note))
                    evaluation = replace(evaluation, name=entry.name)
                    key = (index, entry.name or evaluation.method, evaluation.ipc, evaluation.pack)
                    row = rows.get(key)
                    rows[key] = evaluation if row is None else replace(row, runs=row.runs + evaluation.runs)
                    done += 1
                    bar.update(done, note=note)
    return [rows[key] for key in sorted(rows, key=lambda key: key[0])]
