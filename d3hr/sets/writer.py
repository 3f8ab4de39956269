"""Writes a distilled set: images, manifest, statistics, data-set card and contact sheet (see :mod:`d3hr.sets.distilled_set`).

A set appears whole or not at all: it is built as ``OUT.partial``, where a finished class folder is never made again.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from d3hr.data.ahead import decoding_threads
from d3hr.data.codec import is_sound_png, png_of_pixels, read_square, to_uint8
from d3hr.data.showing import MAX_CLASSES, MAX_COLUMNS, contact_sheet
from d3hr.distillation.grouping import search_mixtures
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.settings import DistillSettings, StatisticsDtype
from d3hr.distillation.tasks import GenerateTasks, ImageGenerator
from d3hr.execution.base import Execution
from d3hr.execution.worker import name_elsewhere
from d3hr.fileio.atomic import load_if_valid, read_json, write_bytes, write_json
from d3hr.fileio.staging import StagedFolder, remove
from d3hr.prior.model import Prior
from d3hr.progress import SILENT, Progress
from d3hr.sets.card import set_card
from d3hr.sets.manifest import Manifest
from d3hr.sets.statistics import write_mixtures

Images = Callable[[Sequence[str]], Iterable[tuple[str, Tensor]]]
"""From names of classes to each with its images, float [K, 3, H, W] in [-1, 1], in any order."""
WRITING = "writing classes"
"""Title of the bar of the images."""
CONTENTS = "contents.safetensors"
"""The file of a set that says which images it was made from: the first 64 bits of the SHA-256 of each (int64 [N]), class by class, and how
many each class has (int64 [C])."""
TEMPORARY = ("statistics", "added", "candidates.json", "chosen")
"""What a staged set may hold, and the finished one does not need."""


def write_set(
    stage: StagedFolder,
    manifest: Manifest,
    draw: Images,
    *,
    mixtures: Mapping[str, ClassMixture] | None = None,
    statistics_dtype: StatisticsDtype = "float32",
    temporary: Sequence[str] = (),
    progress: Progress = SILENT,
) -> None:
    """Complete a staged set and commit it; classes that an earlier run finished are kept, and at an IPC of 0 there are no images.

    ``mixtures`` are the statistics to store, in the order of the classes; ``temporary`` names what of the staged folder the finished set
    does not need.
    """
    if manifest.ipc > 0:
        _write_images(stage.path, manifest, draw, progress)
    if mixtures:
        write_mixtures(stage.path / "statistics.safetensors", mixtures.values(), statistics_dtype)
    manifest = manifest.model_copy(update={"storage": _storage(stage.path, manifest)})
    write_bytes(stage.path / "README.md", set_card(manifest).encode())
    write_json(stage.path / "manifest.json", manifest.model_dump(mode="json"))
    stage.commit(exclude=temporary)


def write_drawn_set(
    stage: StagedFolder,
    manifest: Manifest,
    prior: Prior,
    settings: DistillSettings,
    mixtures: Mapping[str, ClassMixture],
    *,
    real: Images | None = None,
    execution: Execution,
    memory_budget: int | None,
    progress: Progress,
) -> None:
    """Complete a staged set with :func:`drawn_images`, after ``real`` ones if there are any; at an IPC of 0 there are no images."""
    part = settings.model_copy(update={"ipc": settings.ipc - settings.real_images})
    draw = drawn_images(stage.path, manifest, prior, part, mixtures, execution=execution, memory_budget=memory_budget, progress=progress)
    if real is not None:
        draw = _joined(real, draw)
    write_set(stage, manifest, draw, mixtures=mixtures, statistics_dtype=settings.statistics_dtype, temporary=TEMPORARY, progress=progress)


def drawn_images(
    folder: Path,
    manifest: Manifest,
    prior: Prior,
    settings: DistillSettings,
    mixtures: Mapping[str, ClassMixture],
    *,
    execution: Execution,
    memory_budget: int | None,
    progress: Progress,
) -> Images:
    """Return a function that draws ``settings.ipc`` images of each class from class statistics, as :func:`write_set` takes it.

    Groups are searched for the classes that are asked for, and for no others; what is found is kept in ``folder``, under one of the names
    of :data:`TEMPORARY`. A mixture is looked up when its turn comes. A search may hold ``memory_budget`` bytes, by default 256 MiB.
    """
    file, device = folder / "candidates.json", name_elsewhere(prior.device)

    def candidates(names: Sequence[str]) -> dict[str, int]:
        kept = load_if_valid(file, read_json, progress) or {}
        known, searched = dict[str, int](kept.get("candidates", {})), dict.fromkeys(kept.get("classes", []))
        if more := [name for name in names if name not in searched]:
            known |= search_mixtures(
                mixtures, settings, more, progress=progress, memory_budget=memory_budget, device=device, execution=execution
            )
            write_json(file, {"classes": [*searched, *more], "candidates": known})
        return known

    generator = ImageGenerator(prior, settings, prior.denoiser.conditions(manifest.conditioning))

    def draw(names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        tasks = GenerateTasks(names, mixtures, candidates(names))
        return ((names[index], images) for index, images in execution.run(generator, tasks))

    return draw


def _joined(first: Images, then: Images) -> Images:
    """Return a function that gives the images of both, class by class."""

    def joined(name: str, images: Tensor) -> tuple[str, Tensor]:
        ((_, before),) = first([name])
        return name, torch.cat([before, images])

    return lambda names: itertools.starmap(joined, then(names))


def _write_images(folder: Path, manifest: Manifest, draw: Images, progress: Progress) -> None:
    train = folder / "train"
    train.mkdir(exist_ok=True)
    folders = {entry.name: train / entry.folder for entry in manifest.classes}
    missing = [entry.name for entry in manifest.classes if not _is_kept(folders[entry.name], entry.images, progress)]
    drawn = draw(missing) if missing else []  # before the bar: a search has one of its own
    threads = decoding_threads()
    with progress.bar(WRITING, len(folders)) as bar, ThreadPoolExecutor(threads) as writers:
        bar.update(len(folders) - len(missing))
        written = _written(drawn, folders, writers, threads)
        for done, _ in enumerate(written, start=len(folders) - len(missing) + 1):
            bar.update(done)
    shown = {entry.name: entry.files(folder)[:MAX_COLUMNS] for entry in manifest.classes[:MAX_CLASSES]}
    rows = {name: torch.stack([read_square(file, manifest.image_size) for file in files]) for name, files in shown.items()}
    write_bytes(folder / "contact-sheet.png", contact_sheet(rows))


def _written(drawn: Iterable[tuple[str, Tensor]], folders: Mapping[str, Path], writers: ThreadPoolExecutor, ahead: int) -> Iterator[None]:
    """Write classes while the next ones are drawn, and yield for each that is written; no more than ``ahead`` wait while one is drawn.

    What was drawn is written in any case: whoever ends ``writers`` waits for it.
    """
    waiting = deque[Future[None]]()
    for name, images in drawn:
        waiting.append(writers.submit(_write_class, folders[name], to_uint8(images)))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    for each in waiting:
        yield each.result()


def _is_kept(folder: Path, count: int, progress: Progress) -> bool:
    """Return whether an earlier run left exactly the images of a class, all undamaged; otherwise its folder is removed."""
    if not folder.is_dir():
        return False
    expected = {f"{index:05d}.png" for index in range(count)}
    if {path.name for path in folder.iterdir()} == expected and all(is_sound_png((folder / name).read_bytes()) for name in expected):
        return True
    progress.say(f"{folder} is damaged: it is made again")
    remove(folder)
    return False


def _storage(folder: Path, manifest: Manifest) -> dict[str, int]:
    """Return :attr:`Manifest.storage`; hard labels are folder names, which are not counted."""
    statistics = folder / "statistics.safetensors"
    return {
        "images": sum(image.stat().st_size for image in folder.glob("train/*/*.png")),
        "statistics": statistics.stat().st_size if statistics.is_file() else 0,
        "soft_labels": 0,
        "prior": manifest.prior.bytes,
    }


def _write_class(folder: Path, images: Tensor) -> None:
    partial = folder.with_name(f".{folder.name}.part")
    remove(partial)
    partial.mkdir()
    for index, image in enumerate(images):
        write_bytes(partial / f"{index:05d}.png", png_of_pixels(image))
    partial.replace(folder)
