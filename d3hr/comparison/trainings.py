"""One training of one student on one set, done once: its result is kept under a key of all that decides it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from d3hr.data.dataset import ImageData
from d3hr.evaluation.evaluate import prepared
from d3hr.evaluation.images import StudentImages
from d3hr.evaluation.protocols import Protocol
from d3hr.evaluation.results import Evaluation
from d3hr.evaluation.tasks import Training, Trainings
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.atomic import load_if_valid, read_json, write_json
from d3hr.fileio.checksums import digest_of
from d3hr.fileio.names import class_folders
from d3hr.prior.networks import default_device
from d3hr.progress import SILENT, Progress, Within
from d3hr.sets.image_set import ImageSet, require_images


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


@dataclass(frozen=True)
class Entry:
    """A set, the seeds of the students to train on it, and the name of its row in a table; by default its method."""

    distilled: ImageSet
    seeds: Sequence[int]
    name: str | None = None


@dataclass(frozen=True)
class _Planned:
    """One training of a comparison, and the file that keeps its result."""

    entry: Entry
    setting: Setting
    seed: int
    about: dict[str, Any]
    folder: Path
    place: int = 0
    """Position of the setting among all."""

    @classmethod
    def of(cls, entry: Entry, setting: Setting, seed: int, test: ImageData, folder: Path, place: int = 0) -> _Planned:
        require_images(entry.distilled)
        side = entry.distilled.image_size if setting.image_size is None else setting.image_size
        setting = replace(setting, protocol=setting.protocol.on(default_device(), side))
        return cls(entry, setting, seed, _about(entry.distilled, test, setting, seed), folder, place)

    @property
    def note(self) -> str:
        """What is under way, for people."""
        return f"{self.entry.name or self.entry.distilled.method}, {self.setting.student}, {self.setting.protocol.name}"

    @cached_property
    def file(self) -> Path:
        """Where the result is kept."""
        name = f"{self.setting.student}-{self.setting.protocol.name}"  # a protocol's own file may call it anything
        return self.folder / f"{class_folders([name])[name]}-{digest_of(self.about)[:12]}.json"

    @property
    def soft_label_file(self) -> Path:
        """Where soft labels are kept, for all trainings on the same images with the same teacher."""
        labelled = [self.about[field] for field in ("set", "teacher", "image_size", "resize") if field in self.about]
        cropped = [True] if self.setting.protocol.crop_stored else []  # a teacher labels the images as they are before they are cropped
        return self.folder / f"soft-labels-{digest_of([*labelled, *cropped])[:12]}.safetensors"

    @property
    def task(self) -> Training:
        """The training as a task, without what it needs of a teacher."""
        setting = self.setting
        return Training(self.entry.distilled, setting.student, setting.protocol, self.seed, setting.image_size)

    def evaluation(self, kept: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation whose file holds ``kept``."""
        setting, distilled = self.setting, self.entry.distilled
        given = {"student": setting.student, "protocol": setting.protocol, "image_size": setting.image_size, "pack": distilled.pack}
        fields = {**{field: kept[field] for field in _KEPT}, **given, "runs": [kept["run"]]}
        return replace(_EVALUATION.validate_python(fields), name=self.entry.name)


class _Tasks(Sequence[Training]):
    """Trainings as tasks, each with what it needs of a teacher, which is computed when its turn comes; ``teachers`` has what is known."""

    def __init__(self, planned: Sequence[_Planned], images: StudentImages) -> None:
        self._planned, self._images = planned, images
        self.teachers: dict[int, tuple[dict[str, Any] | None, int]] = {}

    def __len__(self) -> int:
        return len(self._planned)

    def __getitem__(self, index: int) -> Training:  # type: ignore[override]
        one = self._planned[index]
        task, record = prepared(one.task, self._images, one.setting.teacher, one.soft_label_file)
        self.teachers[index] = record, task.soft_label_bytes
        return task


def evaluate_once(
    distilled: ImageSet, test: ImageData | StudentImages, setting: Setting, seed: int, folder: Path, progress: Progress = SILENT
) -> Evaluation:
    """Return the evaluation of one training: from its file in ``folder``, or by training now and writing it."""
    images = test if isinstance(test, StudentImages) else StudentImages(test)
    planned = _Planned.of(Entry(distilled, [seed]), setting, seed, images.test, folder)
    return planned.evaluation(_results([planned], images, SERIAL, progress)[planned.file])


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


def _results(planned: Sequence[_Planned], images: StudentImages, execution: Execution, progress: Progress) -> dict[Path, dict[str, Any]]:
    """Return what the file of each training holds, after training the students whose files are missing or damaged."""
    results = {file: kept for file in {one.file for one in planned} if (kept := load_if_valid(file, read_json)) is not None}
    missing = list({one.file: one for one in planned if one.file not in results}.values())
    done = len(planned) - len(missing)
    with progress.bar("training students", len(planned)) as bar:
        within = Within(bar, done, 1)
        within.move(done, missing[0].note if missing else "")
        tasks = _Tasks(missing, images)
        for index, run in execution.run(Trainings(images, progress=within), tasks) if missing else ():
            one, (teacher, soft_label_bytes) = missing[index], tasks.teachers[index]
            distilled = one.entry.distilled
            results[one.file] = {
                "about": one.about,
                "method": distilled.method,
                "ipc": distilled.ipc,
                "class_names": distilled.class_names,
                "teacher": teacher,
                "soft_label_bytes": soft_label_bytes,
                "run": asdict(run),
            }
            write_json(one.file, results[one.file])
            done += 1
            within.move(done, missing[min(index + 1, len(missing) - 1)].note)
    return results


def compare_entries(
    entries: Iterable[Entry],
    test: ImageData | StudentImages,
    settings: Sequence[Setting],
    *,
    folder: Path,
    execution: Execution = SERIAL,
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """Evaluate every entry in every setting; entries of one name, IPC and packing form one row per setting, in order of first appearance.

    All sets are made before the first student is trained. A student whose result is in the folder is not trained again; the others are
    tasks of ``execution``, and the result of each is kept when it ends. Test images are decoded once by a process, and those of a set are
    released when its last student is trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = test if isinstance(test, StudentImages) else StudentImages(test)
    planned = [
        _Planned.of(entry, setting, seed, images.test, folder, place)
        for entry in entries
        for place, setting in enumerate(settings)
        for seed in entry.seeds
    ]
    results = _results(planned, images, execution, progress)
    rows: dict[tuple[int, str, int, int], Evaluation] = {}
    for one in planned:
        evaluation = one.evaluation(results[one.file])
        key = (one.place, evaluation.name or evaluation.method, evaluation.ipc, evaluation.pack)
        row = rows.get(key)
        rows[key] = evaluation if row is None else replace(row, runs=row.runs + evaluation.runs)
    return [rows[key] for key in sorted(rows, key=lambda key: key[0])]
