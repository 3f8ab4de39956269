"""How long work tells a person how far it has come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text


class Bar(Protocol):
    """One piece of work under way."""

    def update(self, completed: int, *, total: int | None = None, note: str = "") -> None:
        """Say that ``completed`` of ``total`` units are done."""


class Progress(Protocol):
    """Where long work reports to."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """Open a bar over ``total`` units."""

    def say(self, text: str) -> None:
        """Report one line."""


class _SilentBar:
    def update(self, completed: int, *, total: int | None = None, note: str = "") -> None:
        pass


class Silent:
    """Reports nothing: the library's default."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Open a bar that shows nothing."""
        yield _SilentBar()

    def say(self, text: str) -> None:
        """Say nothing."""


class _Rate(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="cyan")


def is_first_process() -> bool:
    """Return whether this process speaks for all that a launcher such as ``accelerate launch`` started together."""
    return os.environ.get("RANK", "0") == "0"


class OnTerminal:
    """Reports to standard error: bars with rate and time left on a terminal, plain lines elsewhere; of several processes the first does."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=not is_first_process())

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Open a bar."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self.console, disable=not self.console.is_terminal) as rich:
            yield _RichBar(rich, title, total)
        if not self.console.is_terminal:
            self.say(title)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False, soft_wrap=True)


class _RichBar:
    def __init__(self, rich: RichProgress, title: str, total: int) -> None:
        self._rich, self._task = rich, rich.add_task(title, total=total, note="")

    def update(self, completed: int, *, total: int | None = None, note: str = "") -> None:
        self._rich.update(self._task, completed=completed, total=total, note=note)


SILENT = Silent()
