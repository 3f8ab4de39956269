"""Work for tests, in a module that other processes can import."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from d3hr.errors import ClassMismatch
from d3hr.execution.base import Result, Task, Work
from d3hr.execution.worker import pickle_outcome, pickle_work, unpickle_outcome


@dataclass(frozen=True)
class FloatSums:
    """Task n: the sum of random floats of many magnitudes seeded by n, whose last bits depend on the order of adding."""

    length: int = 1000

    def open(self) -> Callable[[int], float]:
        return self._sum

    def _sum(self, seed: int) -> float:
        numbers, total = random.Random(seed), 0.0
        for _ in range(self.length):
            total += numbers.random() * 10.0 ** numbers.randint(-6, 6)
        return total


def first_time(mark: Path) -> bool:
    """Return whether no process has left this mark yet, and leave it."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@dataclass(frozen=True)
class DyingSums:
    """:class:`FloatSums` whose process dies by SIGKILL at some tasks: once each, or whenever they are tried."""

    marks: Path
    fatal: frozenset[int]
    always: bool = False

    def open(self) -> Callable[[int], float]:
        add = FloatSums().open()

        def run(seed: int) -> float:
            if seed in self.fatal and (first_time(self.marks / f"{seed}.died") or self.always):
                os.kill(os.getpid(), signal.SIGKILL)
            return add(seed)

        return run


@dataclass(frozen=True)
class Around:
    """The process that ran a task, and its environment."""

    process: int
    openings: int
    omp: str | None
    threads: int
    devices: str | None


@dataclass(frozen=True)
class ObservedSums:
    """:class:`FloatSums` and what is around; waits before the first task until ``workers`` processes have opened it."""

    folder: Path
    workers: int = 1

    def open(self) -> Callable[[int], tuple[float, Around]]:
        with self._mine.open("a") as file:
            file.write("x")
        wait_until(lambda: len(list(self.folder.iterdir())) >= self.workers, 120)
        return self._run

    @property
    def _mine(self) -> Path:
        return self.folder / str(os.getpid())

    def _run(self, seed: int) -> tuple[float, Around]:
        import torch

        variables = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES")
        return FloatSums().open()(seed), Around(os.getpid(), len(self._mine.read_text()), *variables)


class Awkward(Exception):
    """Cannot be unpickled: its constructor takes two arguments and passes on one."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)
        self.two = two


@dataclass(frozen=True)
class CannotOpen:
    def open(self) -> Callable[[int], int]:
        raise ClassMismatch("a set", ["ant"], "a teacher", ["bee"])


@dataclass(frozen=True)
class Sleeping:
    """Task: seconds to sleep after creating a file named after the process's number; below zero, an error at once."""

    folder: Path

    def open(self) -> Callable[[float], float]:
        def run(seconds: float) -> float:
            (self.folder / str(os.getpid())).touch()
            if seconds < 0:
                raise ClassMismatch("a set", ["ant"], "a teacher", ["bee"])
            time.sleep(seconds)
            return seconds

        return run


@dataclass(frozen=True)
class StuckOnNode:
    """:class:`FloatSums` that create a file and do not end on one node of a Ray cluster, and end on no other before there is a file."""

    folder: Path
    node: str

    def open(self) -> Callable[[int], float]:
        import ray

        stuck = ray.get_runtime_context().get_node_id() == self.node
        add = FloatSums().open()

        def run(seed: int) -> float:
            if stuck:
                (self.folder / str(seed)).touch()
                time.sleep(600)
            wait_until(lambda: any(self.folder.iterdir()), 300)
            return add(seed)

        return run


@dataclass(frozen=True)
class Disconnecting:
    """:class:`FloatSums`, after each of which the next call of Ray in that process fails, as where its node goes, and leaves a file."""

    folder: Path

    def open(self) -> Callable[[int], float]:
        from d3hr.execution import ray as execution_ray

        ray_of, add = execution_ray._ray, FloatSums().open()

        def broken() -> object:
            execution_ray._ray = ray_of
            (self.folder / str(os.getpid())).touch()
            raise BrokenPipeError("Broken pipe")

        def run(seed: int) -> float:
            execution_ray._ray = broken
            return add(seed)

        return run


@dataclass(frozen=True)
class Interrupted:
    """Task: anything; sends SIGINT, as Ctrl-C does, to the process that runs it. Result: the task."""

    def open(self) -> Callable[[int], int]:
        return self._run

    def _run(self, task: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return task


@dataclass(frozen=True)
class Echo:
    """Task: bytes; result: the same."""

    def open(self) -> Callable[[bytes], bytes]:
        return bytes


@dataclass(frozen=True)
class Elsewhere:
    """Runs tasks in this process as another would: everything is pickled on its way, and the last task is first; ends after ``most``."""

    most: int | None = None
    works: list[str] = field(default_factory=list)
    """What was run, by the names of its classes."""

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        self.works.append(type(work).__name__)
        run_task = pickle.loads(pickle_work(work)).open()
        for index in list(reversed(range(len(tasks))))[: self.most]:
            yield index, unpickle_outcome(pickle_outcome(partial(run_task, pickle.loads(pickle.dumps(tasks[index])))))
        if self.most is not None:
            raise KeyboardInterrupt

    def session(self) -> AbstractContextManager[Elsewhere]:
        return nullcontext(self)


def alive(process: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return as soon as a condition holds; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


if __name__ == "__main__":  # a parent to be killed: its worker sleeps
    from d3hr.execution.processes import WorkerProcesses

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests were started in the background
    for _ in WorkerProcesses(1).run(Sleeping(Path(sys.argv[1])), [600.0]):
        pass
