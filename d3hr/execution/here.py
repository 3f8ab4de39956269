"""Work done in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from d3hr.execution.work import Result, Task, Work


@dataclass(frozen=True)
class Here:
    """This process: one piece after the other, in order, each when it is asked for."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result)."""
        do = work.open()
        for index, task in enumerate(tasks):
            yield index, do(task)

    def standing(self) -> AbstractContextManager[Here]:
        """This process stands anyway."""
        return nullcontext(self)


HERE = Here()
