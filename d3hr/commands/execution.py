"""Where a command's pieces of work run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import ByteSize, TypeAdapter, ValidationError

from d3hr.errors import SettingsError

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
        memory_budget: memory that a group search may hold, and a batch of --batch_size auto: 512MiB, 4GiB, ...
    """

    execution: Literal["here", "processes", "ray"] = "here"
    workers: int | None = None
    threads: int | None = None
    address: str | None = None
    memory_budget: str | None = None

    def chosen(self) -> Execution:
        """Return the execution, or complain of flags that contradict each other."""
        from d3hr.execution.choice import execution_named

        return execution_named(self.execution, workers=self.workers, threads=self.threads, address=self.address)

    def budget(self) -> int | None:
        """Return the memory budget in bytes, or complain of one that is no amount of memory."""
        if self.memory_budget is None:
            return None
        try:
            return int(TypeAdapter(ByteSize).validate_python(self.memory_budget))
        except ValidationError:
            raise SettingsError(
                "--memory_budget is no amount of memory.",
                found=repr(self.memory_budget),
                do="give bytes with a unit, such as 512MiB or 4GiB.",
            ) from None


RUNNING = Running()
