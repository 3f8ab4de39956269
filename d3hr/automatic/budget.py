"""The minutes that a choice may take, over all the runs that it is made in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from d3hr.errors import SettingsError
from d3hr.fileio.atomic import load_if_valid, read_json, write_json
from d3hr.progress import Bar, Progress

LEAST_MINUTES = 0.5
"""With less, not even random real images and one other way can be compared."""


class Budget:
    """Seconds spent and left; what earlier runs spent on finished work is kept in a file.

    Args:
        minutes: all that there are.
        file: where the seconds of finished work are kept, by what they were spent on.
        spent: seconds that this run has spent already, on reading the images.
        clock: tells the time in seconds.

    Raises:
        SettingsError: there are fewer than :data:`LEAST_MINUTES`.
    """

    def __init__(self, minutes: float, file: Path, *, spent: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        if minutes < LEAST_MINUTES:
            raise SettingsError("--minutes is too short for a choice.", found=f"{minutes:g}", hint=f"give at least {LEAST_MINUTES:g}.")
        self.seconds = 60 * minutes
        self._file, self._clock = file, clock
        self._by_work: dict[str, float] = load_if_valid(file, read_json) or {}
        self._earlier = sum(self._by_work.values())
        self._started = clock() - spent

    @property
    def spent(self) -> float:
        """Seconds since this run began, and those of the finished work of earlier runs."""
        return self._earlier + self._clock() - self._started

    @property
    def left(self) -> float:
        """Seconds to the end; below 0 beyond it."""
        return self.seconds - self.spent

    def spent_on(self, work: str) -> float:
        """Return the seconds spent on one kind of work."""
        return self._by_work.get(work, 0.0)

    @contextmanager
    def on(self, work: str, bar: Bar | None = None, note: str = "") -> Iterator[Progress]:
        """Keep how long the work inside takes, once it is finished; yield where it reports, which moves ``bar`` by the time spent."""
        started, progress = self._clock(), _Clocked(self, bar or Bar(), note or work)
        progress.update(0)
        yield progress
        progress.update(0)
        self._by_work[work] = self.spent_on(work) + self._clock() - started
        write_json(self._file, self._by_work)


class _Clocked(Progress, Bar):
    """Moves a bar over a budget's seconds whenever work inside reports anything."""

    def __init__(self, budget: Budget, outer: Bar, note: str) -> None:
        self._budget, self._outer, self._note = budget, outer, note

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        """Open a bar that moves the outer one."""
        yield self

    def update(self, completed: float, *, total: float | None = None, note: str = "", left: float | None = None) -> None:
        """Report the time spent and left of the budget."""
        self._outer.update(self._budget.spent, note=self._note, left=max(0.0, self._budget.left))
