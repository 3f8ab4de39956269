"""Work that consists of independent tasks, and where tasks run; the simplest place is this process."""

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
    """What all tasks have in common, such as the networks that they use. Work, tasks and results are pickled to reach other processes.

    A result must depend on its task alone, never on the tasks that ran before it in the same process: then a task that was lost with its
    process can run again elsewhere, and nothing depends on the number of processes.
    """

    def open(self) -> Callable[[_Task], _Result]:
        """Prepare this process (load networks, open files) and return the function that runs one task."""


class Execution(Protocol):
    """Where tasks run."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as tasks finish, in any order.

        Raises:
            D3hrError: raised by a task, unchanged.
            ExecutionError: the processes or the cluster failed.
        """

    def session(self) -> AbstractContextManager[Execution]:
        """Return a context in which several runs share the same processes and connections, and the execution to use inside it."""


@dataclass(frozen=True)
class Serial:
    """This process: one task after the other, in order, each when its result is requested."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result)."""
        run_task = work.open()
        for index, task in enumerate(tasks):
            yield index, run_task(task)

    def session(self) -> AbstractContextManager[Serial]:
        """Return a context that does nothing: there is nothing to keep."""
        return nullcontext(self)


SERIAL = Serial()
