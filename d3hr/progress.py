"""How long work reports its progress to a person: bars with the time left on a terminal and in a notebook, plain lines elsewhere."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

from d3hr.formatting import time_in_words

SECONDS_BETWEEN_LINES = 30.0
"""Seconds from one line to the next where there is no terminal to draw a bar on."""


class Bar:
    """The progress of one piece of work; this one is not shown."""

    def update(self, completed: float, *, total: float | None = None, note: str = "", left: float | None = None) -> None:
        """Report that ``completed`` units are done.

        Args:
            completed: units that are done; a started one may count in part.
            total: number of all units, where that has changed.
            note: what is under way, in a few words.
            left: seconds to the end, where the work knows better than its speed says.
        """


class Progress:
    """Where long work reports to; this one reports nothing."""

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        """Open a bar over ``total`` units; None where the work does not know yet how many they are."""
        yield Bar()

    def say(self, text: str) -> None:
        """Report one line."""


SILENT = Progress()


class Within(Progress):
    """Reports to a part of another bar: work inside fills ``size`` of its units, from ``start`` on, and leaves its title and note."""

    def __init__(self, outer: Bar, start: float, size: float, note: str = "") -> None:
        self._outer, self._start, self._size, self._note = outer, start, size, note

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        """Open a bar that moves the outer one."""
        yield _Part(self._outer, self._start, self._size, self._note, total)

    def move(self, start: float, note: str = "") -> None:
        """Let the bars that are opened from now on fill the units from ``start`` on, and show what is under way."""
        self._start, self._note = start, note
        self._outer.update(start, note=note)


class _Part(Bar):
    def __init__(self, outer: Bar, start: float, size: float, note: str, total: float | None) -> None:
        self._outer, self._start, self._size, self._note, self._total = outer, start, size, note, total

    def update(self, completed: float, *, total: float | None = None, note: str = "", left: float | None = None) -> None:
        self._total = total or self._total
        share = min(1.0, completed / self._total) if self._total else 0.0
        self._outer.update(self._start + self._size * share, note=self._note or note)


class InSteps(Progress):
    """Says of each bar of a longer work which of its steps it is: "step 2 of 3, searching groups".

    Args:
        progress: where to report.
        titles: the bars that are steps, in their order; a step that an earlier run has done is left out, and any other bar is as it is.
    """

    def __init__(self, progress: Progress, titles: Sequence[str]) -> None:
        self._progress, self._titles = progress, list(titles)

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        """Open the bar of a step."""
        known = len(self._titles) > 1 and title in self._titles
        shown = f"step {self._titles.index(title) + 1} of {len(self._titles)}, {title}" if known else title
        with self._progress.bar(shown, total) as bar:
            yield bar

    def say(self, text: str) -> None:
        """Report one line."""
        self._progress.say(text)


def is_first_process() -> bool:
    """Return whether this is the first of the processes that a launcher such as ``accelerate launch`` started together."""
    return os.environ.get("RANK", "0") == "0"


class OnTerminal(Progress):
    """Reports to standard error: bars with rate and time left on a terminal and in a notebook, a line every 30 seconds elsewhere.

    Of several processes only the first reports.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=not is_first_process())

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        """Open a bar over ``total`` units."""
        if self.console.is_terminal or self.console.is_jupyter:
            columns = "{task.description}", BarColumn(), _Count(), _Rate(), _Left(), "{task.fields[note]}"
            with RichProgress(*columns, console=self.console) as rich:
                yield _RichBar(rich, title, total)
        else:
            bar = _Lines(self, title, total)
            yield bar
            bar.end()

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, soft_wrap=True)


class InNotebook(Progress):
    """Reports as :class:`OnTerminal` does inside a notebook, and nothing anywhere else: what library functions do by default."""

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        """Open a bar over ``total`` units."""
        with self._place().bar(title, total) as bar:
            yield bar

    def say(self, text: str) -> None:
        """Report one line."""
        self._place().say(text)

    def _place(self) -> Progress:
        terminal = OnTerminal()
        return terminal if terminal.console.is_jupyter else SILENT


BY_DEFAULT = InNotebook()


class _RichBar(Bar):
    def __init__(self, rich: RichProgress, title: str, total: float | None) -> None:
        self._rich, self._task = rich, rich.add_task(title, total=total, note="", left=None)

    def update(self, completed: float, *, total: float | None = None, note: str = "", left: float | None = None) -> None:
        self._rich.update(self._task, completed=completed, total=total, note=note, left=left)


class _Lines(Bar):
    """Says how far the work is at most every 30 seconds, and at the end how long it took."""

    def __init__(self, progress: Progress, title: str, total: float | None) -> None:
        self._progress, self._title, self._total = progress, title, total
        self._started = self._said = time.monotonic()
        self._first: float | None = None  # what an earlier run had done tells nothing of this one's speed

    def update(self, completed: float, *, total: float | None = None, note: str = "", left: float | None = None) -> None:
        self._total = total or self._total
        self._first = completed if self._first is None else self._first
        now = time.monotonic()
        if now - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = now
        if left is None and self._total and completed > self._first:
            left = (now - self._started) * (self._total - completed) / (completed - self._first)
        parts = [f"{self._title}: {_counted(completed, self._total)}", f"{time_in_words(left)} left" if left is not None else "", note]
        self._progress.say(", ".join(part for part in parts if part))

    def end(self) -> None:
        """Say that the work is done."""
        took = time.monotonic() - self._started
        self._progress.say(f"{self._title}: done in {time_in_words(took)}" if took >= 1 else f"{self._title}: done")


class _Count(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        return Text(_counted(task.completed, task.total), style="green")


class _Rate(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed and task.speed >= 0.05 else "", style="cyan")


class _Left(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        left = task.time_remaining if task.fields["left"] is None else task.fields["left"]
        return Text("" if left is None else f"{time_in_words(left)} left", style="cyan")


def _counted(completed: float, total: float | None) -> str:
    return f"{completed:,.0f}" if total is None else f"{int(completed):,}/{total:,.0f}"
