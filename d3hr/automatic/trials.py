"""Trials of candidates: sets of several seeds, and a student trained on each and tested on held-out images, all kept on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from d3hr.automatic.budget import Budget
from d3hr.automatic.candidates import RANDOM, Candidate
from d3hr.automatic.students import STUDENT, Labels, StudentPlan
from d3hr.comparison.statistics import Difference, advantages_on
from d3hr.comparison.trainings import Setting, evaluate_once
from d3hr.data.dataset import ImageData
from d3hr.evaluation.choice import Advantage, Trial
from d3hr.evaluation.images import StudentImages
from d3hr.evaluation.results import Evaluation, TrainingResult
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.names import class_folders
from d3hr.methods.job import MethodInputs
from d3hr.progress import SILENT, Bar, Progress
from d3hr.sets.distilled_set import DistilledSet
from d3hr.sets.image_set import ImageSet

CONFIDENCE = 0.95
"""Of all the intervals of a choice together."""


@dataclass
class Trials:
    """What was tried so far.

    Attributes:
        inputs: the real images without those held out, and the networks that candidates may use.
        held_out: the images that students are tested on.
        ipc: images per class.
        seed: seed of the first set; the others follow.
        students: how students are trained.
        labels: what they learn from.
        folder: where sets and results are kept, and found again.
        budget: where the time is counted.
        bar: where progress is reported, in seconds of the budget.
    """

    inputs: MethodInputs
    held_out: ImageData
    ipc: int
    seed: int
    students: StudentPlan
    labels: Labels
    teacher: Teacher | None
    folder: Path
    budget: Budget
    bar: Bar = field(default_factory=Bar)
    _runs: dict[str, list[Evaluation]] = field(default_factory=dict)
    _tried: dict[str, Candidate] = field(default_factory=dict)
    _seen: dict[str, StudentImages] = field(default_factory=dict)
    """The images that students are tested on, by their fingerprint: each is decoded once."""

    def __post_init__(self) -> None:
        (self.folder / "trainings").mkdir(exist_ok=True)

    @property
    def tried(self) -> tuple[Candidate, ...]:
        """The candidates of which a student was trained, in that order."""
        return tuple(self._tried.values())

    def run(self, candidate: Candidate, place: int) -> None:
        """Make the set of a place, from 0, train a student on it and test it; what an earlier run finished is read."""
        with self.budget.on(candidate.name, self.bar, f"{candidate.name}, set {place + 1}") as progress:
            distilled = self.set_of(candidate, place, progress)
            evaluation = self.evaluate(distilled, self.held_out, place, candidate.name, progress=progress)
        self._tried[candidate.name] = candidate
        self._runs.setdefault(candidate.name, []).append(evaluation)

    def set_of(self, candidate: Candidate, place: int, progress: Progress = SILENT) -> DistilledSet:
        """Return the set of a candidate at a place, made now or by an earlier run."""
        out = set_folder(self.folder, candidate.name, place)
        return candidate.make(self.inputs, out, ipc=self.ipc, seed=self.seed + place, shared=self.folder / "shared", progress=progress)

    def evaluate(
        self,
        distilled: ImageSet,
        test: ImageData,
        place: int,
        name: str | None = None,
        *,
        steps: int | None = None,
        labels: Labels | None = None,
        progress: Progress = SILENT,
    ) -> Evaluation:
        """Return the evaluation of one student, trained now or in an earlier run.

        Args:
            distilled: what it learns from.
            test: what it is tested on.
            place: the place of the set, which is the seed of the training.
            name: name of its row in results.
            steps: other optimiser steps than those of the plan.
            labels: other labels than those of all trials.
            progress: where to report.
        """
        labels = labels or self.labels
        protocol = self.students.protocol(labels, steps=steps)
        setting = Setting(STUDENT, protocol, self.teacher if labels == "soft" else None, self.students.image_size)
        seen = self._seen.setdefault(test.fingerprint, StudentImages(test))
        return replace(evaluate_once(distilled, seen, setting, place, self.folder / "trainings", progress), name=name)

    def runs(self, candidate: Candidate) -> tuple[TrainingResult, ...]:
        """Return the results of a candidate's students, by place."""
        return tuple(run for evaluation in self._runs.get(candidate.name, []) for run in evaluation.runs)

    def rows(self) -> list[Evaluation]:
        """Return an evaluation per candidate, of all its students."""
        return [merged(evaluations) for evaluations in self._runs.values()]

    @property
    def confidence(self) -> float:
        """Confidence of each interval, by Bonferroni's inequality: together they hold with :data:`CONFIDENCE`."""
        return 1 - (1 - CONFIDENCE) / max(len(self._tried) - 1, 1)

    def advantage(self, candidate: Candidate) -> Difference | None:
        """Return how much better a candidate's students are than those of random real images with the same seeds."""
        others = {one.name: self.runs(one) for one in self.tried if not one.is_random}
        return advantages_on(others, self.runs(RANDOM), confidence=self.confidence).get(candidate.name)

    def best(self) -> Candidate:
        """Return the candidate of the highest mean advantage, the first tried of equals; random real images where none is above zero."""
        return max(self.tried, key=lambda one: 0.0 if one.is_random else getattr(self.advantage(one), "mean", 0.0))

    def leaders(self, count: int) -> list[Candidate]:
        """Return the candidates of the highest mean advantages, the best first."""
        others = [one for one in self.tried if not one.is_random]
        return sorted(others, key=lambda one: -getattr(self.advantage(one), "mean", 0.0))[:count]

    def records(self, commands: Mapping[str, str]) -> list[Trial]:
        """Return what came of each candidate, as a choice keeps it; ``commands`` has the command of each."""
        return [
            Trial(
                name=one.name,
                method=self._runs[one.name][0].method,
                command=commands[one.name],
                accuracies=accuracies(self.runs(one)),
                advantage=None if one.is_random else recorded(self.advantage(one)),
                minutes=round(self.budget.spent_on(one.name) / 60, 2),
            )
            for one in self.tried
        ]


def set_folder(folder: Path, name: str, place: int) -> Path:
    """Return where the set of a candidate at a place is kept, in the folder of a choice."""
    return folder / "sets" / f"{class_folders([name])[name]}-{place}"


def merged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return evaluations of one candidate as one, of all their runs."""
    return replace(evaluations[0], runs=tuple(run for evaluation in evaluations for run in evaluation.runs))


def accuracies(runs: Sequence[TrainingResult]) -> tuple[float, ...]:
    """Return the accuracy of each run after its last step."""
    return tuple(run.last_epoch for run in runs)


def recorded(difference: Difference | None) -> Advantage | None:
    """Return a difference as a record keeps it, which knows no infinite numbers."""
    if difference is None:
        return None
    bounded = math.isfinite(difference.low)
    return Advantage(
        mean=round(difference.mean, 6),
        low=round(difference.low, 6) if bounded else None,
        high=round(difference.high, 6) if bounded else None,
    )
