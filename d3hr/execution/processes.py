"""Tasks that run in worker processes on this machine, each with a GPU of its own where there are any."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

from d3hr.data.ahead import decoders_of_each
from d3hr.errors import ExecutionError, require_at_least
from d3hr.execution.base import Execution, Result, Task, Work
from d3hr.execution.worker import cuda_devices, pickle_outcome, pickle_work, set_threads, thread_environment, unpickle_outcome

RETRIES = 3
"""How many times a task runs again after its worker died."""
_PATIENCE = 5.0
"""Seconds that idle workers have to exit by themselves."""
_CONTEXT = multiprocessing.get_context("spawn")
_STOPS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class WorkerProcesses:
    """Worker processes on this machine; each opens the work once and runs one task at a time.

    Never more than ``workers`` are started, nor more than there are tasks. A worker that dies is replaced and its task runs again, at most
    ``RETRIES`` times; the other workers are not affected. No worker outlives the iterator, the context of :meth:`session`, or this process.
    With n CUDA devices worker i sees only device i mod n.
    """

    workers: int
    threads: int = 1

    def __post_init__(self) -> None:
        require_at_least("--workers", self.workers)
        require_at_least("--threads", self.threads)

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """As :meth:`Execution.run`; the processes failed if one cannot start, or ``RETRIES`` + 1 died while they ran the same task."""
        with self.session() as session:
            yield from session.run(work, tasks)

    @contextmanager
    def session(self) -> Iterator[Execution]:
        """Keep the workers from one run to the next."""
        session = _Session(self.workers, self.threads)
        atexit.register(session.end, 0)
        try:
            yield session
            session.end(_PATIENCE)
        finally:
            session.end(0)
            atexit.unregister(session.end)


class _Session:
    """Workers that stay from run to run. Only the thread that iterates over results starts and ends them."""

    def __init__(self, workers: int, threads: int) -> None:
        self._size, self._threads, self._devices = workers, threads, cuda_devices()
        self._workers: dict[int, _Worker] = {}

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        pickled_work = pickle_work(work)
        waiting, deaths = deque(range(len(tasks))), Counter[int]()
        running: dict[int, int] = {}  # number of the worker -> index of its task
        outcomes = SimpleQueue[tuple[int, bytes | None]]()
        try:
            while waiting or running:
                for number in range(self._size):
                    if waiting and number not in running:
                        worker, index = self._worker(number), waiting.popleft()
                        running[number] = index
                        task = pickle.dumps(tasks[index], pickle.HIGHEST_PROTOCOL)
                        threading.Thread(target=worker.run, args=(pickled_work, task, outcomes), daemon=True).start()
                number, outcome = outcomes.get()
                index = running.pop(number)
                if outcome is None:
                    deaths[index] += 1
                    _check_death(self._workers.pop(number), index, deaths[index])
                    waiting.appendleft(index)
                else:
                    yield index, unpickle_outcome(outcome)
        finally:
            for number in running.keys() & self._workers.keys():  # their results are no longer wanted
                self._workers.pop(number).kill()

    def session(self) -> AbstractContextManager[_Session]:
        return nullcontext(self)

    def end(self, patience: float) -> None:
        """End all workers: by themselves within ``patience`` seconds, which only idle ones do, else by force."""
        if patience:
            for worker in self._workers.values():
                worker.connection.close()
            for worker in self._workers.values():
                worker.process.join(patience)
        while self._workers:
            self._workers.popitem()[1].kill()

    def _worker(self, number: int) -> _Worker:
        """Return the worker of that number, started if there is none."""
        if number not in self._workers:
            device = self._devices[number % len(self._devices)] if self._devices else None
            with _interrupts_blocked():
                self._workers[number] = _Worker(number, self._threads, decoders_of_each(self._size), device)
        return self._workers[number]


class _Worker:
    """A process that opens work once and then runs its tasks, one at a time, until it receives other work.

    Each worker has a pipe of its own, so that one that dies in the middle of a message affects no other. ``device`` is the only entry of
    CUDA_VISIBLE_DEVICES that it sees, or None to leave them as they are; ``ready`` is whether it has started.
    """

    def __init__(self, number: int, threads: int, decoders: int, device: str | None) -> None:
        self.number, self.ready = number, False
        self._work: bytes | None = None
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, threads), name=f"d3hr worker {number}")
        environment = thread_environment(threads, decoders) | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        with theirs, _environment(environment):
            self.process.start()

    def run(self, work: bytes, task: bytes, outcomes: SimpleQueue[tuple[int, bytes | None]]) -> None:
        """Run one task of the work and put (number, outcome) into the queue; the outcome is None if the process died. Blocks."""
        outcome = None
        with suppress(EOFError, OSError):
            if not self.ready:
                self.connection.recv_bytes()
                self.ready = True
            self.connection.send_bytes(b"" if work is self._work else work)
            self.connection.send_bytes(task)
            self._work = work
            outcome = self.connection.recv_bytes()
        outcomes.put((self.number, outcome))

    def kill(self) -> None:
        """End the process, unless it has ended."""
        self.process.kill()
        self.process.join()


def _check_death(worker: _Worker, index: int, deaths: int) -> None:
    """Raise an :class:`ExecutionError` if the task of a worker that died should not run again."""
    worker.process.join()
    code = worker.process.exitcode or 0
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if not worker.ready:
        raise ExecutionError(
            "A worker process ended before it could begin.",
            found=f"{cause}; its own message is above",
            hint="in a script, begin the work under `if __name__ == '__main__':`, since each worker imports the script.",
        )
    if deaths > RETRIES:
        raise ExecutionError(
            f"A worker process died {deaths} times while it ran the same task.",
            found=f"task {index}, the last time by {cause}",
            hint="probably memory ran out: use fewer --workers.",
        )


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until a process that is being started is registered; it unblocks them itself when it is ready to."""
    resource_tracker.ensure_running()  # multiprocessing unblocks signals when it starts this helper process of its own
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes started inside the context."""
    before = {name: os.environ[name] for name in variables.keys() & os.environ.keys()}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def _serve(connection: Connection[Any, Any], threads: int) -> None:
    """Run as a worker: receive work and tasks, and send outcomes, until the other end of the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group; the parent decides what ends
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    set_threads(threads)
    work, run_task = b"", None

    def run(task: bytes) -> Any:
        nonlocal run_task
        run_task = run_task or pickle.loads(work).open()
        return run_task(pickle.loads(task))

    with suppress(EOFError, OSError):
        connection.send_bytes(b"")  # ready
        while True:
            if other_work := connection.recv_bytes():
                work, run_task = other_work, None
            connection.send_bytes(pickle_outcome(partial(run, connection.recv_bytes())))


def _exit_with_parent() -> None:
    """Exit when the parent process has ended, for whatever reason."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
