"""What is to be done piece by piece, and the places that can do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_Task = TypeVar("_Task", contravariant=True)
_Result = TypeVar("_Result", covariant=True)


class Work(Protocol[_Task, _Result]):
    """What is to be done, in a form that travels to other processes: it is pickled, and so are its tasks and results.

    A piece must depend on its task alone, never on which pieces were done before it in the same process: then a piece that was lost with
    its process can be done again elsewhere, and nothing depends on how many processes there are.
    """

    def open(self) -> Callable[[_Task], _Result]:
        """Make ready in this process (load networks, open files) and return the function that does one piece."""


class Execution(Protocol):
    """Where pieces of work are done."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as pieces are done, in any order.

        Raises:
            D3hrError: an error of a piece, as it is.
            ExecutionError: the place cannot do the work.
        """

    def session(self) -> AbstractContextManager[Execution]:
        """Keep what it takes to work, such as processes or a connection, from one run to the next for as long as the context lasts."""


@dataclass(frozen=True)
class Serial:
    """This process: one piece after the other, in order, each when it is asked for."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result)."""
        do = work.open()
        for index, task in enumerate(tasks):
            yield index, do(task)

    def session(self) -> AbstractContextManager[Serial]:
        """This process stands anyway."""
        return nullcontext(self)


SERIAL = Serial()
