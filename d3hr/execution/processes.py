"""Work shared out over worker processes of this machine, one GPU a worker where there are any."""

from __future__ import annotations

import atexit
import os
import pickle
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import wait

from d3hr.errors import ExecutionError
from d3hr.execution.base import Execution, Result, Task, Work
from d3hr.execution.worker import Worker, at_least_one, interrupts_held, result_of

RETRIES = 3
"""How many times a piece is given out again after the worker that did it died."""
_PATIENCE = 5.0
"""Seconds that workers with nothing left to do get to end by themselves."""


@dataclass(frozen=True)
class WorkerProcesses:
    """Worker processes on this machine, each with the work opened once, doing one piece at a time.

    A worker that dies is replaced and its piece given out again, at most ``RETRIES`` times. No worker outlives the iterator, the
    context of :meth:`standing`, or this process. On a machine with CUDA devices worker i sees device i mod n alone.

    Args:
        workers: how many processes; never more are started than there are pieces.
        threads: threads that each computes with.
    """

    workers: int
    threads: int = 1

    def __post_init__(self) -> None:
        at_least_one("--workers", self.workers)
        at_least_one("--threads", self.threads)

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as pieces are done, in any order.

        Raises:
            ExecutionError: a worker cannot start, or one died ``RETRIES`` + 1 times over the same piece.
        """
        with self.session() as team:
            yield from team.run(work, tasks)

    @contextmanager
    def session(self) -> Iterator[Execution]:
        """Keep the workers from one run to the next."""
        team = _Team(self.threads)
        try:
            yield _Session(self.workers, team)
            team.end(_PATIENCE)
        finally:
            team.end(0)


@dataclass(frozen=True)
class _Session:
    """Workers that stay from run to run."""

    workers: int
    team: _Team

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        parcel = pickle.dumps(work, pickle.HIGHEST_PROTOCOL)
        waiting, deaths, missing = deque(range(len(tasks))), Counter[int](), len(tasks)
        try:
            for worker in self.team.idle():
                worker.open(parcel)
            while missing:
                self.team.grow(min(self.workers, missing))
                for worker in self.team.idle():
                    if waiting:
                        index = waiting.popleft()
                        worker.give(index, pickle.dumps(tasks[index], pickle.HIGHEST_PROTOCOL))
                done: list[tuple[int, bytes]] = []
                for worker in self.team.speaking():
                    try:
                        done += filter(None, [worker.hear(parcel)])
                    except EOFError:
                        waiting.extendleft(_bereaved(worker, deaths))
                        self.team.dismiss(worker)
                missing -= len(done)
                for index, outcome in done:
                    yield index, result_of(outcome)
        finally:
            for worker in self.team.busy():  # with pieces that nobody waits for any more
                self.team.dismiss(worker)

    def session(self) -> AbstractContextManager[_Session]:
        return nullcontext(self)


class _Team:
    """The workers that there are."""

    def __init__(self, threads: int) -> None:
        self._threads, self._devices = threads, cuda_devices()
        self._workers: list[Worker] = []
        atexit.register(self.end, 0)

    def grow(self, size: int) -> None:
        """Start workers until there are ``size``."""
        while len(self._workers) < size:
            number = min(set(range(size)) - {worker.number for worker in self._workers})
            device = self._devices[number % len(self._devices)] if self._devices else None
            with interrupts_held():
                self._workers.append(Worker(number, threads=self._threads, device=device))

    def speaking(self) -> list[Worker]:
        """Wait until at least one worker has something to say or has died, and return those."""
        spoke = wait([end for worker in self._workers for end in (worker.connection, worker.process.sentinel)])
        return [worker for worker in self._workers if worker.connection in spoke or worker.process.sentinel in spoke]

    def idle(self) -> list[Worker]:
        """Return the workers that wait for a piece."""
        return [worker for worker in self._workers if worker.idle]

    def busy(self) -> list[Worker]:
        """Return the workers that have a piece."""
        return [worker for worker in self._workers if worker.piece is not None]

    def dismiss(self, worker: Worker) -> None:
        """Take a worker off the books."""
        worker.end(0)
        self._workers.remove(worker)

    def end(self, patience: float) -> None:
        """End all workers: those with something still to do are to be given no patience."""
        for worker in self._workers:
            worker.connection.close()
            if not patience:
                worker.process.kill()
        while self._workers:
            self._workers.pop().end(patience)
        atexit.unregister(self.end)


def _bereaved(worker: Worker, deaths: Counter[int]) -> list[int]:
    """Return what a worker that died leaves undone."""
    if not worker.ready:
        raise ExecutionError(
            "A worker process ended before it could begin.",
            found=f"{worker.ended_by()}; what it printed stands above",
            hint="in a script, begin the work under `if __name__ == '__main__':`, since each worker imports the script.",
        )
    if worker.piece is None:
        return []
    deaths[worker.piece] += 1
    if deaths[worker.piece] > RETRIES:
        raise ExecutionError(
            f"A worker process died {deaths[worker.piece]} times over the same piece of work.",
            found=f"piece {worker.piece}, the last time by {worker.ended_by()}",
            hint="likely there was no memory left: use fewer --workers.",
        )
    return [worker.piece]


def cuda_devices() -> list[str]:
    """Return the entries of CUDA_VISIBLE_DEVICES, one a device that this process may use, without touching any."""
    import torch

    count, given = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given is not None else [str(index) for index in range(count)]
    return [name.strip() for name in names[:count]]
