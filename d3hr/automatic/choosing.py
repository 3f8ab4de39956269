"""The best set that the minutes allow: candidates are compared on held-out images, and the winner is handed out with the evidence."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from d3hr.automatic.advice import next_step
from d3hr.automatic.budget import Budget
from d3hr.automatic.candidates import RANDOM, Candidate
from d3hr.automatic.search import SETS, SLACK, search
from d3hr.automatic.students import BATCH, STUDENT, Labels, StudentPlan, plan_students
from d3hr.automatic.trials import Trials, accuracies, merged, recorded, set_folder
from d3hr.comparison.statistics import advantages_on
from d3hr.comparison.tables import Comparison
from d3hr.data.dataset import ImageData
from d3hr.errors import SettingsError
from d3hr.evaluation.choice import FILE, Choice, Confirmation
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import load_or_make
from d3hr.fileio.names import sibling, with_a_name
from d3hr.fileio.staging import StagedFolder, lock_workdir, require_free_or_ours
from d3hr.methods.job import MethodInputs
from d3hr.prior.model import Prior
from d3hr.progress import BY_DEFAULT, Progress
from d3hr.report.report import require_replaceable, write_report
from d3hr.selection.real_images import require_real_images
from d3hr.sets.distilled_set import DistilledSet

MINUTES = 20.0
HOLD_OUT = 0.2
"""Share of each class that candidates are compared on."""
FULL_SHARE, FULL_PASSES = 0.12, 40
"""Share of the budget for a student of all the training images, and how often it sees each at most."""
TEACHER_SHARE = 0.2
"""Share of the budget for a teacher of soft labels, where none is given."""
LAST_SECONDS = 10.0
"""For copying the set and writing the page."""


@dataclass(frozen=True)
class Outcome:
    """A set that was chosen, why, and where the evidence is.

    Attributes:
        distilled: the set.
        choice: the evidence.
        folder: where ``choice.json``, the sets that were tried, and results are.
        report: the page.
    """

    distilled: DistilledSet
    choice: Choice
    folder: Path
    report: Path


def choose_set(
    images: ImageData,
    prior: Prior | None = None,
    out: str | Path | None = None,
    *,
    minutes: float = MINUTES,
    labels: Labels = "hard",
    ipc: int = 10,
    teacher: Teacher | None = None,
    test: ImageData | None = None,
    hold_out: float = HOLD_OUT,
    class_map: Mapping[str, str] | None = None,
    seed: int = 0,
    flags: tuple[str, ...] = (),
    spent: float = 0.0,
    progress: Progress = BY_DEFAULT,
) -> Outcome:
    """Find the best set that a number of minutes allows, and write it, the evidence, and a page about both.

    A part of the training images is held out. Ways to make a set are tried on the others, from the most promising and cheap on: a student
    is trained on each set, and on random real images with the same seeds, and tested on the images held out. The set of the first seed of
    the best way is handed out. A run that was stopped goes on.

    Args:
        images: the real images.
        prior: a diffusion prior to draw from; without one, one is fitted where the time allows.
        out: folder to write; next to the images by default. ``OUT-choice`` and ``OUT-report.html`` are written next to it.
        minutes: what everything may take together.
        labels: what students learn from: classes (``hard``), or the answers of a teacher (``soft``).
        ipc: images per class.
        teacher: a network trained on real images of these classes; with soft labels one is trained where none is given.
        test: test images, on which the chosen set and random real images are compared once, at the end.
        hold_out: share of each class's images to compare on, 0 to 1.
        class_map: class -> prior's class, for classes whose names do not match.
        seed: seed of the first set.
        flags: flags with which the command line reads the images, for the commands that are printed.
        spent: seconds that have passed already.
        progress: where to report.

    Raises:
        DataError: a class has too few images.
        SettingsError: an option is out of range.
        OutputError: a place to write to holds something else.
    """
    if images.hold_out:
        raise SettingsError("A part of these images is held out already.", found=f"hold_out {images.hold_out:g}", hint="load all images.")
    out = Path(out) if out is not None else sibling(images.source, "-distilled")
    out = with_a_name(out)
    folder, report = out.with_name(f"{out.name}-choice"), out.with_name(f"{out.name}-report.html")
    require_free_or_ours(out)
    require_replaceable(report)
    training, held_out = images.divided(hold_out)
    require_real_images(training, ipc)
    key = {
        "kind": "choice",
        "data": training.fingerprint,
        "test": test.fingerprint if test else None,
        "prior": prior.fingerprint if prior else None,
        "teacher": teacher.fingerprint if teacher else None,
        "ipc": ipc,
        "labels": labels,
        "seed": seed,
    }
    with lock_workdir(folder, key):
        if (folder / FILE).is_file():
            progress.say(f"the choice in {folder} is finished already; nothing is computed again")
        else:
            inputs = MethodInputs(training, training.image_size, prior, teacher, class_map)
            budget = Budget(minutes, folder / "spent.json", spent=spent)
            choice, taken = _choose(inputs, held_out, test, folder, budget, labels, ipc, seed, flags, str(out), progress)
            Comparison(taken.rows()).write(folder)
            choice.write(folder)
        choice = Choice.read(folder)
        distilled = _hand_out(folder, choice, out)
    evaluations = [folder / "test"] if (folder / "test" / "results.json").is_file() else []
    write_report(str(out), report, evaluations=evaluations, choice=choice)
    return Outcome(distilled, choice, folder, report)


def _choose(
    inputs: MethodInputs,
    held_out: ImageData,
    test: ImageData | None,
    folder: Path,
    budget: Budget,
    labels: Labels,
    ipc: int,
    seed: int,
    flags: tuple[str, ...],
    out: str,
    progress: Progress,
) -> tuple[Choice, Trials]:
    """Try candidates, and return the choice with its evidence."""
    training = inputs.images
    with progress.bar("choosing", budget.seconds) as bar:
        with budget.on("measuring"):
            students = StudentPlan(**load_or_make(folder / "students.json", lambda: asdict(plan_students(training, ipc, budget.seconds))))
        teacher = inputs.teacher
        if labels == "soft" and teacher is None:
            with budget.on("training a teacher", bar) as inside:
                teacher = _teacher(training, held_out, students, folder, budget, inside)
        trials = Trials(inputs, held_out, ipc, seed, students, labels, teacher, folder, budget, bar)
        try:
            each = students.steps * students.seconds_per_step
            reserve = FULL_SHARE * budget.seconds + LAST_SECONDS + (2 * SETS * each if test else 0.0)
            left_out = search(trials, reserve)
        except KeyboardInterrupt:
            _say_best(trials, progress)
            raise
        winner = trials.best()
        tested = _tested(trials, winner, test, folder) if test else None
        full, steps, complete = _full_data(trials)
        bar.update(budget.spent)
    commands = {one.name: one.command(trials.inputs, out, ipc=ipc, seed=seed, flags=flags) for one in trials.tried}
    choice = Choice(
        source=training.source,
        ipc=ipc,
        labels=labels,
        training_images=len(training),
        held_out=len(held_out),
        student=STUDENT,
        image_size=students.image_size,
        steps=students.steps,
        confidence=trials.confidence,
        trials=tuple(trials.records(commands)),
        chosen=winner.name,
        left_out=tuple(left_out),
        full_accuracy=full,
        full_steps=steps,
        full_complete=complete,
        tested=tested,
        minutes=round(budget.spent / 60, 2),
        budget_minutes=budget.seconds / 60,
        versions={name: version(name) for name in ("d3hr", "torch")},
    )
    advice = next_step(choice, training, folder / "shared", out)
    return choice.model_copy(update={"next_step": advice}), trials


def _teacher(training: ImageData, held_out: ImageData, students: StudentPlan, folder: Path, budget: Budget, progress: Progress) -> Teacher:
    """Train a teacher on the training images, for as long as its share of the budget allows."""
    affordable = int(TEACHER_SHARE * budget.seconds / students.seconds_per_batch)
    steps = load_or_make(folder / "teacher.json", lambda: {"steps": max(students.steps, min(affordable, _passes(training)))})["steps"]
    protocol = students.protocol("hard", steps=steps)
    return train_teacher(
        training, folder / "teacher", test=held_out, student=STUDENT, protocol=protocol, image_size=students.image_size, progress=progress
    )


def _passes(training: ImageData) -> int:
    """Return the steps of :data:`FULL_PASSES` over all images."""
    return FULL_PASSES * -(-len(training) // BATCH)


def _full_data(trials: Trials) -> tuple[float | None, int, bool]:
    """Return the accuracy of a student of all the training images, its steps, and whether these are as many as help."""
    budget, students, training = trials.budget, trials.students, trials.inputs.images
    wanted = _passes(training)
    seconds = min(budget.left - LAST_SECONDS, FULL_SHARE * budget.seconds)
    steps = min(wanted, int(seconds / (SLACK * students.seconds_per_batch)))
    if steps < min(students.steps, wanted):
        return None, 0, False
    steps = load_or_make(trials.folder / "full.json", lambda: {"steps": steps})["steps"]
    with budget.on("all training images", trials.bar) as progress:
        evaluation = trials.evaluate(training, trials.held_out, 0, steps=steps, labels="hard", progress=progress)
    return evaluation.accuracy_mean, steps, steps >= wanted


def _tested(trials: Trials, winner: Candidate, test: ImageData, folder: Path) -> Confirmation:
    """Compare the winner and random real images on the test images, with as many sets as there is time for, and write the rows."""
    places = range(min(SETS, len(trials.runs(winner))))
    rows = []
    for one in dict.fromkeys([winner, RANDOM]):
        with trials.budget.on("test images", trials.bar):
            rows.append(merged([trials.evaluate(trials.set_of(one, place), test, place, one.name) for place in places]))
    results = folder / "test"
    results.mkdir(exist_ok=True)
    Comparison(rows).write(results)
    return Confirmation(
        images=len(test),
        accuracies=accuracies(rows[0].runs),
        real_accuracies=accuracies(rows[-1].runs),
        advantage=None if winner.is_random else recorded(advantages_on({winner.name: rows[0].runs}, rows[-1].runs).get(winner.name)),
    )


def _say_best(trials: Trials, progress: Progress) -> None:
    """Say which set is the best so far, and where it is."""
    if trials.tried:
        best = trials.best()
        progress.say(f"the best so far: {best.name}, in {trials.set_of(best, 0).path}")


def _hand_out(folder: Path, choice: Choice, out: Path) -> DistilledSet:
    """Copy the set that was chosen to where it was asked for, unless it is there."""
    tried = DistilledSet.load(set_folder(folder, choice.chosen, 0))
    with StagedFolder(out, tried.manifest.key()) as stage:
        if not stage.finished:
            shutil.copytree(tried.path, stage.path, dirs_exist_ok=True)
            stage.commit()
    return DistilledSet.load(out)
