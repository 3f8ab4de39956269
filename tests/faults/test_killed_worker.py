"""A worker process that is killed takes no result with it."""

import multiprocessing
import random
from pathlib import Path

import pytest

from d3hr.errors import ExecutionError
from d3hr.execution import processes
from d3hr.execution.base import Serial
from d3hr.execution.processes import WorkerProcesses
from tests.execution.works import DyingSums, FloatSums, Sleeping

pytestmark = pytest.mark.slow


def test_results_are_complete_though_workers_die(tmp_path: Path) -> None:
    """Two of twelve tasks, drawn at random, kill the process that runs them the first time; the results are those without."""
    tasks = range(12)
    fatal = frozenset(random.Random(0).sample(tasks, 2))
    results = list(WorkerProcesses(2).run(DyingSums(tmp_path, fatal), tasks))
    assert len(list(tmp_path.iterdir())) == 2
    assert len(results) == 12
    assert dict(results) == dict(Serial().run(FloatSums(), tasks))


def test_a_task_that_always_kills_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After one retry it has killed two processes. Results of earlier tasks have been returned."""
    monkeypatch.setattr(processes, "RETRIES", 1)
    results = []
    with pytest.raises(ExecutionError, match="died 2 times") as caught:
        for index, _ in WorkerProcesses(1).run(DyingSums(tmp_path, frozenset({2}), always=True), range(4)):
            results.append(index)
    assert results == [0, 1]
    assert "task 2" in caught.value.found and "SIGKILL" in caught.value.found
    assert "fewer --workers" in caught.value.hint


def test_a_worker_that_dies_between_two_runs_is_replaced() -> None:
    """The second run of a session uses the worker of the first, which has been killed."""
    with WorkerProcesses(1).session() as session:
        results = dict(session.run(FloatSums(), range(3)))
        (worker,) = [child for child in multiprocessing.active_children() if child.name.startswith("d3hr worker")]
        worker.kill()
        assert dict(session.run(FloatSums(), range(3))) == results


def test_results_that_are_abandoned_after_their_session_do_no_harm(tmp_path: Path) -> None:
    """The session ends while a worker is in a task of ten minutes, or is still starting."""
    with WorkerProcesses(2).session() as session:
        results = session.run(Sleeping(tmp_path), [0.0, 600.0])
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert not [child for child in multiprocessing.active_children() if child.name.startswith("d3hr worker")]
