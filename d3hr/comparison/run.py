"""Runs a comparison: every set is made once and every student trained once, even if the run is interrupted in between."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from d3hr.comparison.matrix import Matrix, MatrixRow
from d3hr.comparison.tables import Comparison
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.data.dataset import ImageData
from d3hr.distillation.settings import USUAL_STEPS
from d3hr.errors import SettingsError
from d3hr.evaluation.evaluate import TRAINING_SEEDS, describe_teacher, require_seeds, require_teacher
from d3hr.evaluation.images import StudentImages
from d3hr.evaluation.protocols import Protocol, protocol_named
from d3hr.evaluation.results import own_name
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.fileio.staging import lock_workdir
from d3hr.methods.job import MethodInputs
from d3hr.methods.prior_only import prior_only
from d3hr.methods.registry import METHODS
from d3hr.prior.model import Prior
from d3hr.progress import BY_DEFAULT, Progress, Within
from d3hr.sets.image_set import ImageSet


def compare(
    matrix: Matrix,
    inputs: MethodInputs,
    test: ImageData,
    out: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    full_data: Sequence[Teacher] = (),
    image_size: int | None = None,
    execution: Execution = SERIAL,
    progress: Progress = BY_DEFAULT,
) -> Comparison:
    """Make every set of a matrix, train every student on it, and return the rows in the order of IPC, student, protocol and method.

    Results are written to ``results.json`` and ``results.csv`` after each number of images per class. The same folder takes further
    matrices of the same data, prior and teacher: work that they share is done once.

    Args:
        settings: settings of all methods that take them; a row's own come before them.
        full_data: networks trained on all the real images, from which HLR follows for students of the same name.
        image_size: side in pixels that students see; by default that of the sets. Sets of real pixels are made at this side, so that their
            images are resized once, from the real ones, as the test images are; see :func:`side_of_real` where a protocol crops.
        execution: where sets are made and students are trained, each training a task of its own; the table does not depend on it.
    """
    common = dict(settings or {})
    unused = common.keys() - {name for row in matrix.methods for name in METHODS[row.method].options}
    if unused:
        raise SettingsError("No method of the matrix takes this setting.", found=", ".join(sorted(unused)), hint="correct --settings.")
    names, folder = inputs.images.class_names, Path(out)
    protocols = [protocol_named(protocol, ipc=ipc, classes=len(names)) for protocol in matrix.protocols for ipc in matrix.ipc]
    side = side_of_real(inputs.images, image_size or inputs.image_size, inputs.image_size, protocols)
    for row in matrix.methods:
        METHODS[row.method].check(_inputs(row, inputs, side), _settings(row, common))
    for protocol in protocols:
        require_teacher(protocol, inputs.teacher, names)
    seen = StudentImages(test)
    seen.require_classes(names)
    accuracies = {}
    for network in full_data:
        network.require_classes(names, "the data")
        tested = seen.tested(names, image_size or inputs.image_size)
        accuracies[network.student] = float(describe_teacher(network, tested)["accuracy"])
    comparison = Comparison((), accuracies)
    done = 0
    trainings = folder / "trainings"
    with (
        lock_workdir(folder, _key(inputs, test)),
        execution.session() as place,
        progress.bar("training students", matrix.trainings) as bar,
    ):
        for ipc in matrix.ipc:
            count = matrix.trainings_at(ipc)
            conditions = [
                Setting(student, protocol_named(protocol, ipc=ipc, classes=len(names)), inputs.teacher, image_size)
                for student in matrix.students
                for protocol in matrix.protocols
            ]
            entries = _entries(matrix, common, inputs, side, ipc, folder, place, progress)
            rows = compare_entries(entries, seen, conditions, folder=trainings, execution=place, progress=Within(bar, done, count))
            comparison = Comparison([*comparison.rows, *rows], accuracies)
            comparison.write(folder)
            done += count
    return comparison


def _entries(
    matrix: Matrix,
    common: Mapping[str, Any],
    inputs: MethodInputs,
    side: int,
    ipc: int,
    folder: Path,
    execution: Execution,
    progress: Progress,
) -> Iterator[Entry]:
    """Make the sets of one IPC."""
    for place, seed in enumerate(matrix.distillation_seeds):
        for row in matrix.methods_at(ipc):
            made_from = _inputs(row, inputs, side)
            sized = "" if made_from is inputs else f"-{made_from.image_size}px"
            out = folder / "sets" / f"{quote(row.label, safe=' ,')}-ipc{ipc}{sized}-seed{seed}"
            distilled = METHODS[row.method].make(
                made_from,
                out,
                ipc=ipc,
                seed=seed,
                shared=folder / "shared",
                execution=execution,
                progress=progress,
                **_settings(row, common),
            )
            yield Entry(distilled, matrix.seeds_of_set(place), row.label)


def side_of_real(images: ImageData, seen: int, sets: int, protocols: Iterable[Protocol]) -> int:
    """Return the side at which sets of real pixels are made, where students see ``seen`` pixels and generated sets have ``sets``.

    It is ``seen``; where a protocol crops stored images, ``images``' own side if that lies between both, so that crops stay as sharp.
    """
    cropped = any(protocol.crop_stored for protocol in protocols)
    return max(seen, min(images.image_size, sets)) if cropped else seen


def _inputs(row: MatrixRow, inputs: MethodInputs, side: int) -> MethodInputs:
    """Return what the sets of a row are made from; those of real pixels have a side of their own."""
    return inputs if METHODS[row.method].generates or side == inputs.image_size else replace(inputs, image_size=side)


def _settings(row: MatrixRow, common: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a row: those of the comparison that its method takes, then its own."""
    taken = METHODS[row.method].options
    return {**{name: value for name, value in common.items() if name in taken}, **row.settings}


def _key(inputs: MethodInputs, test: ImageData) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "data": inputs.images.fingerprint,
        "test": test.fingerprint,
        "prior": inputs.prior.fingerprint if inputs.prior else None,
        "teacher": inputs.teacher.fingerprint if inputs.teacher else None,
        "image_size": inputs.image_size,
    }


def compare_with_baselines(
    subject: ImageSet,
    test: ImageData,
    out: Path,
    setting: Setting,
    *,
    real: ImageData | None,
    prior: Prior | None,
    seeds: Sequence[int] = TRAINING_SEEDS,
    execution: Execution = SERIAL,
    progress: Progress = BY_DEFAULT,
) -> Comparison:
    """Evaluate a set, random real images, and images drawn from its prior, all of the same IPC and at the same side.

    Random real images are packed as the set is, at its own side: as many pictures in the same pixels.

    One student per seed is trained on the set; each baseline is drawn anew for each seed, and one student trained on it. Real images are
    resized once, to the side that students see; the prior draws on the grid, and with the guidance, of the set. A baseline without its
    images or prior, or with too few images of a class, is left out. Baselines and results of an earlier run in ``out`` are used again.
    Baselines are drawn and students trained where ``execution`` says; the table does not depend on it.
    """
    require_seeds(seeds)
    key = {"kind": "evaluation", "set": subject.identity, "test": test.fingerprint}
    with lock_workdir(out, key), execution.session() as place:
        wanted = subject.ipc * subject.pack**2
        if real is not None and min(real.counts.values()) < wanted:
            progress.say(f"no row of random real images: a class has fewer than {wanted} of them")
            real = None
        drawn = _baselines(subject, out / "baselines", setting, real=real, prior=prior, seeds=seeds, execution=place)
        own = Entry(subject, seeds, own_name(subject.method))
        entries = [*drawn, own] if own.name else [own, *drawn]
        rows = compare_entries(entries, test, [setting], folder=out / "trainings", execution=place, progress=progress)
        comparison = Comparison(rows)
        comparison.write(out)
        return comparison


def _baselines(
    subject: ImageSet,
    folder: Path,
    setting: Setting,
    *,
    real: ImageData | None,
    prior: Prior | None,
    seeds: Sequence[int],
    execution: Execution,
) -> Iterator[Entry]:
    """Make the sets of each baseline, one per seed; a folder's name says what differs from other evaluations of the set."""
    names, ipc, manifest = subject.class_names, subject.ipc, subject.manifest
    for seed in seeds:
        if real is not None:
            image_size, packed = subject.image_size, f"-pack{subject.pack}" if subject.pack > 1 else ""
            if not packed:
                image_size = side_of_real(real, setting.image_size or image_size, image_size, [setting.protocol])
            sized = "" if image_size == subject.image_size else f"-{image_size}px"
            out = folder / f"random_real-ipc{ipc}{sized}{packed}-seed{seed}"
            method, inputs = METHODS["random_real"], MethodInputs(real, image_size)
            yield Entry(method.make(inputs, out, ipc=ipc, seed=seed, shared=folder / "shared", pack=subject.pack), [seed])
        if prior is not None and manifest is not None:
            steps, guidance = manifest.steps, manifest.denoising_guidance
            out = folder / f"prior_only-ipc{ipc}{'' if steps == USUAL_STEPS else f'-{steps}steps'}-seed{seed}"
            matches = manifest.conditioning_in(prior.class_names) if prior.fingerprint == manifest.prior.fingerprint else None
            given: dict[str, Any] = {"steps": steps, "guidance_scale": guidance, "conditioning": matches}
            yield Entry(prior_only(prior, names, out, ipc=ipc, seed=seed, execution=execution, **given), [seed])
