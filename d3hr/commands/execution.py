"""Where a command's pieces of work run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from d3hr.execution.work import Execution


@dataclass(frozen=True)
class Running:
    """Where pieces of work run: flags of every command whose work can be shared out.

    Args:
        execution: here (in this process), processes (workers on this machine, one GPU each where there are any) or ray (a Ray cluster)
        workers: how many pieces to do at once; on Ray as many as there is room for by default
        threads: threads of each worker, 1 by default
        address: Ray cluster to use: auto (the default), host:port, or local for one on this machine alone
    """

    execution: Literal["here", "processes", "ray"] = "here"
    workers: int | None = None
    threads: int | None = None
    address: str | None = None

    def chosen(self) -> Execution:
        """Return the execution, or complain of flags that contradict each other."""
        from d3hr.execution.choice import execution_named

        return execution_named(self.execution, workers=self.workers, threads=self.threads, address=self.address)


RUNNING = Running()
