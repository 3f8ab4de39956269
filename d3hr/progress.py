"""How long work reports its progress to a person."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text


class Bar:
    """The progress of one piece of work, of a known number of units; this one is not shown."""

    def update(self, completed: int, *, total: int | None = None, note: str = "") -> None:
        """Report that ``completed`` units are done, of ``total`` where that has changed."""


class Progress:
    """Where long work reports to; this one reports nothing, as the library does by default."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Open a bar over ``total`` units."""
        yield Bar()

    def say(self, text: str) -> None:
        """Report one line."""


SILENT = Progress()


class _Rate(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="cyan")


def is_first_process() -> bool:
    """Return whether this is the first of the processes that a launcher such as ``accelerate launch`` started together."""
    return os.environ.get("RANK", "0") == "0"


class OnTerminal(Progress):
    """Reports to standard error: bars with rate and time left on a terminal, plain lines elsewhere; of several processes only the first."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=not is_first_process())

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Open a bar over ``total`` units."""
        columns = "{task.description}", BarColumn(), MofNCompleteColumn(), _Rate(), "left", TimeRemainingColumn(), "{task.fields[note]}"
        with RichProgress(*columns, console=self.console, disable=not self.console.is_terminal) as rich:
            yield _RichBar(rich, title, total)
        if not self.console.is_terminal:
            self.say(title)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, soft_wrap=True)


class _RichBar(Bar):
    def __init__(self, rich: RichProgress, title: str, total: int) -> None:
        self._rich, self._task = rich, rich.add_task(title, total=total, note="")

    def update(self, completed: int, *, total: int | None = None, note: str = "") -> None:
        self._rich.update(self._task, completed=completed, total=total, note=note)
