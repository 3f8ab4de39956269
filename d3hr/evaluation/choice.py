"""What came of trying several ways to make a set, on held-out training images: the record of a choice, and what it says in sentences."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from d3hr.evaluation.results import Share
from d3hr.fileio.atomic import write_json
from d3hr.fileio.structured import Record, validated_json
from d3hr.formatting import percent

FILE = "choice.json"
REAL = "random real images"
"""The way that all others are compared with."""
Gap = Annotated[float, Field(ge=-1, le=1)]


class Advantage(Record):
    """How much more accurate one way is than random real images, -1 to 1, with an interval; None where it has no bounds."""

    mean: Gap
    low: float | None = None
    high: float | None = None

    @property
    def certain(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low is not None and self.low > 0

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.certain or (self.high is not None and self.high < 0)

    @property
    def in_words(self) -> str:
        """The difference in points of accuracy, with its interval."""
        if self.low is None or self.high is None:
            return f"{_points(self.mean)} points"
        return f"{_points(self.mean)} points, interval {_points(self.low)} to {_points(self.high)}"


class Trial(Record):
    """One way to make a set, and what students make of it.

    Accuracies are shares from 0 to 1, on images that neither the sets nor the students had.
    """

    name: str
    """What tables call it."""
    method: str
    """Name of the method."""
    command: str
    """The command that makes the set again."""
    accuracies: tuple[Share, ...] = Field(min_length=1)
    """Of one student per set, with the seeds 0, 1, ..."""
    advantage: Advantage | None = None
    """Over random real images with the same seeds; None for these themselves."""
    minutes: float = Field(ge=0)
    """Spent on its sets and students."""

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return sum(self.accuracies) / len(self.accuracies)

    @property
    def spread(self) -> float:
        """Sample standard deviation of the accuracy over sets; 0 for one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


class Confirmation(Record):
    """The set that was chosen, and random real images, on test images that decided nothing."""

    images: int = Field(ge=1)
    accuracies: tuple[Share, ...] = Field(min_length=1)
    real_accuracies: tuple[Share, ...] = Field(min_length=1)
    advantage: Advantage | None = None
    """None where random real images themselves were chosen."""


class Choice(Record):
    """All ways that were tried, which of them was taken, and why."""

    source: str
    """The real images, as the user named them."""
    ipc: int = Field(ge=1)
    labels: Literal["hard", "soft"]
    training_images: int = Field(ge=1)
    held_out: int = Field(ge=1)
    """Images that the ways were compared on: a part of the training images, which no set has."""
    student: str
    image_size: int = Field(ge=1)
    """Side in pixels that students see."""
    steps: int = Field(ge=1)
    """Optimiser steps of a student."""
    confidence: float = Field(gt=0, lt=1)
    """Of each interval: so high that all of them hold together with 95 %."""
    trials: tuple[Trial, ...] = Field(min_length=1)
    """In the order in which they were tried."""
    chosen: str
    """Name of the trial that was taken."""
    left_out: tuple[str, ...] = ()
    """What was not tried, and why, in a sentence each."""
    full_accuracy: Share | None = None
    """Accuracy of a student trained on all the training images; None where there was no time."""
    full_steps: int = 0
    """Its optimiser steps."""
    full_complete: bool = True
    """Whether it was trained for as long as helps; otherwise the accuracy is a lower estimate."""
    tested: Confirmation | None = None
    next_step: str = ""
    minutes: float = Field(ge=0)
    budget_minutes: float = Field(gt=0)
    versions: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Choice:
        """Read the choice in a folder."""
        return validated_json(folder / FILE, TypeAdapter(cls), hint="repeat the command that made the set.")

    def write(self, folder: Path) -> None:
        """Write the choice into a folder."""
        write_json(folder / FILE, self.model_dump(mode="json"))

    @property
    def winner(self) -> Trial:
        """The trial that was taken."""
        return next(trial for trial in self.trials if trial.name == self.chosen)

    @property
    def real(self) -> Trial:
        """Random real images."""
        return next(trial for trial in self.trials if trial.name == REAL)

    @property
    def headline(self) -> str:
        """The answer in one sentence: whether the set is better than random real images, on test images where there are any."""
        winner, others = self.winner, len(self.trials) - 1
        ways = f"{others} other way{'s' if others > 1 else ''}"
        if winner.advantage is None:
            tried = f"of {ways} tried" if others else "for there was no time to try another way"
            return f"Nothing beat random real images, {tried}: the set is random real images."
        if self.tested and self.tested.advantage and self.tested.advantage.settled:
            verdict = "beats random real images" if self.tested.advantage.certain else "is worse than random real images"
            return f"The set {verdict}: {winner.name}, {self.tested.advantage.in_words} on {self.tested.images:,} test images."
        if winner.advantage.certain:
            return f"The set beats random real images: {winner.name}, {winner.advantage.in_words} on {self.held_out:,} held-out images."
        return (
            f"Nothing is surely better than random real images on {self.held_out:,} held-out images; the best of {ways}, {winner.name}, "
            f"is kept ({winner.advantage.in_words}, which may be chance)."
        )

    @property
    def sentences(self) -> list[str]:
        """The accuracies behind the headline: held-out, all the training images, test."""
        said = [
            f"{mean_spread(self.winner.accuracies)} of {self.held_out:,} held-out images are classified right by a {self.student} that "
            f"learned from the set alone ({self.labels} labels, {self.image_size} px)"
            + (f"; as many random real images: {mean_spread(self.real.accuracies)}." if self.winner.advantage else ".")
        ]
        if self.full_accuracy:
            kept = f"the set keeps {100 * self.winner.mean / self.full_accuracy:.0f} % of that"
            reached = "give" if self.full_complete else f"give at least (estimate: {self.full_steps:,} steps, cut by the budget)"
            said.append(f"All {self.training_images:,} training images {reached} {percent(self.full_accuracy)} %: {kept}.")
        if self.tested:
            gap = f", {self.tested.advantage.in_words}" if self.tested.advantage else ""
            real = f"; random real images {mean_spread(self.tested.real_accuracies)}{gap}" if self.tested.advantage else ""
            said.append(f"On {self.tested.images:,} test images, which decided nothing: {mean_spread(self.tested.accuracies)}{real}.")
        return said

    def as_values(self) -> dict[str, Any]:
        """Return everything as JSON values, with the sentences."""
        return {"headline": self.headline, "sentences": self.sentences, **self.model_dump(mode="json")}


def _points(gap: float) -> str:
    """Return a difference in points of accuracy, with its sign."""
    return f"{100 * gap:+.1f}".replace("-", "\N{MINUS SIGN}")


def mean_spread(accuracies: tuple[float, ...]) -> str:
    """Return mean and sample standard deviation in percent."""
    spread = f" ± {percent(statistics.stdev(accuracies))}" if len(accuracies) > 1 else ""
    return f"{percent(statistics.fmean(accuracies))}{spread} %"
