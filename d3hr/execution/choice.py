"""Where work runs, as a person names it."""

from __future__ import annotations

from typing import Literal

from d3hr.errors import SettingsError
from d3hr.execution.here import HERE
from d3hr.execution.on_ray import RayCluster
from d3hr.execution.processes import WorkerProcesses
from d3hr.execution.work import Execution

ExecutionName = Literal["here", "processes", "ray"]


def execution_named(
    name: ExecutionName, *, workers: int | None = None, threads: int | None = None, address: str | None = None
) -> Execution:
    """Return the execution of that name.

    Args:
        name: ``here``, ``processes`` or ``ray``.
        workers: pieces done at once: worker processes, which must be given; on Ray by default as many as there is room for.
        threads: threads of each of them, by default 1.
        address: of the Ray cluster, by default ``auto``.

    Raises:
        SettingsError: a flag is given that has no part in this execution, or one that it needs is not.
    """
    if name != "ray" and address is not None:
        raise _no_part("--address", address, name, "--execution ray")
    if name == "here":
        if workers is not None:
            raise _no_part("--workers", workers, name, "--execution processes")
        if threads is not None:
            raise _no_part("--threads", threads, name, "--execution processes, or set OMP_NUM_THREADS")
        return HERE
    if name == "processes":
        if workers is None:
            raise SettingsError("--execution processes needs --workers.", found="none given", do="give one a GPU, or one a core.")
        return WorkerProcesses(workers, 1 if threads is None else threads)
    return RayCluster(address or "auto", workers, 1 if threads is None else threads)


def _no_part(flag: str, value: object, name: str, instead: str) -> SettingsError:
    return SettingsError(f"{flag} has no part in --execution {name}.", found=f"{flag} {value}", do=f"leave it out, or use {instead}.")
