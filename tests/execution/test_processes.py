"""Worker processes do what this process would do, and leave nobody behind."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from d3hr.errors import ClassMismatch, SettingsError
from d3hr.execution import processes
from d3hr.execution.base import Execution, Serial
from d3hr.execution.processes import WorkerProcesses, cuda_devices
from d3hr.execution.worker import outcome_of, result_of
from tests.execution.works import Awkward, CannotOpen, Echo, FloatSums, Interrupted, ObservedSums, Sleeping, alive, wait_until

ROOT = Path(__file__).parents[2]


def test_here_works_in_order_and_no_further_than_it_is_asked(tmp_path: Path) -> None:
    pieces = Serial().run(ObservedSums(tmp_path), range(5))
    assert not list(tmp_path.iterdir())
    assert [next(pieces)[0], next(pieces)[0]] == [0, 1]
    assert [index for index, _ in pieces] == [2, 3, 4]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int) -> None:
    """Seven sums of floats, equal to the last bit, however many workers share them; each opens the work once, with the threads asked for,
    and of two devices worker i sees device i mod 2."""
    monkeypatch.setattr(processes, "cuda_devices", lambda: ["3", "GPU-77"])
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    results = dict(WorkerProcesses(workers, threads=2).run(ObservedSums(tmp_path, workers), range(7)))
    assert {index: total for index, (total, _) in results.items()} == dict(Serial().run(FloatSums(), range(7)))
    seen = {around.process: around for _, around in results.values()}
    assert os.getpid() not in seen and len(seen) == workers
    assert {(around.openings, around.omp, around.threads) for around in seen.values()} == {(1, "2", 2)}
    assert Counter(around.devices for around in seen.values()) == Counter(["3", "GPU-77", "3"][:workers])
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_no_tasks_need_no_workers(tmp_path: Path) -> None:
    assert list(WorkerProcesses(2).run(ObservedSums(tmp_path), [])) == []
    assert not list(tmp_path.iterdir())


def test_large_tasks_and_results_do_not_block_each_other() -> None:
    """8 MB each way is far over what a pipe holds, so both ends writing at once would wait for ever."""
    tasks = [bytes([index]) * 8_000_000 for index in range(3)]
    assert dict(WorkerProcesses(1).run(Echo(), tasks)) == dict(enumerate(tasks))


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [(None, 2, ["0", "1"]), ("3, GPU-77", 2, ["3", "GPU-77"]), ("1,-1,0", 1, ["1"]), ("", 0, []), (None, 0, [])],
)
def test_devices_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, expected: list[str]
) -> None:
    """CUDA counts what it lets a process see: entries up to the first that is invalid."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert cuda_devices() == expected


def by_nought() -> float:
    return 1 / 0


def awkward() -> None:
    raise Awkward("one", "two")


def test_errors_of_other_libraries_bring_the_traceback_they_had() -> None:
    """Those that a pickle cannot carry become a RuntimeError of their name and text."""
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        result_of(outcome_of(by_nought))
    assert "in by_nought" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match=r"^Awkward: one$") as caught_awkward:
        result_of(outcome_of(awkward))
    assert "in awkward" in str(caught_awkward.value.__cause__)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        result_of(outcome_of(lambda: lambda: None))


@pytest.mark.parametrize("execution", [Serial(), WorkerProcesses(1)], ids=["here", "processes"])
def test_an_error_of_opening_is_raised_as_it_is(execution: Execution) -> None:
    with pytest.raises(ClassMismatch, match=r"a set has \[ant\]; a teacher has \[bee\]"):
        list(execution.run(CannotOpen(), [1, 2]))


def begun(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


def test_nobody_is_left_behind_when_the_rest_is_not_wanted(tmp_path: Path) -> None:
    """A worker that has done a piece has got the next, of ten minutes; the other has too, or is still starting."""
    pieces = WorkerProcesses(2).run(Sleeping(tmp_path), [0.0, 600.0, 600.0])
    next(pieces)
    workers = [child.pid for child in multiprocessing.active_children() if child.pid]
    assert len(workers) == 2 and all(alive(worker) for worker in workers)
    pieces.close()  # type: ignore[attr-defined]
    assert not any(alive(worker) for worker in workers)


def test_nobody_is_left_behind_when_a_piece_fails(tmp_path: Path) -> None:
    """Its error, one of ours, arrives as it is."""
    with pytest.raises(ClassMismatch, match=r"a set has \[ant\]; a teacher has \[bee\]"):
        list(WorkerProcesses(2).run(Sleeping(tmp_path), [600.0, -1.0]))
    assert not any(alive(worker) for worker in begun(tmp_path))


def parent(folder: Path) -> subprocess.Popen[str]:
    """Another process, in a group of its own as a terminal gives it, with a worker that sleeps."""
    command = [sys.executable, "-m", "tests.execution.works", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT, env=environment)
    wait_until(lambda: len(begun(folder)) == 1)
    return process


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    assert dict(WorkerProcesses(1).run(Interrupted(), [4, 5])) == {0: 4, 1: 5}


def test_ctrl_c_ends_everybody_and_only_the_parent_speaks_of_it(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group; the parent's traceback is the only one."""
    with parent(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, text = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert text.count("KeyboardInterrupt") == 1
    assert not any(alive(worker) for worker in begun(tmp_path))


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with parent(tmp_path) as process:
        process.kill()
    wait_until(lambda: not any(alive(worker) for worker in begun(tmp_path)))


def test_a_script_that_starts_work_while_it_is_imported_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from d3hr.execution.processes import WorkerProcesses\n"
        "from tests.execution.works import FloatSums\n"
        "list(WorkerProcesses(1).run(FloatSums(), [1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 1
    assert "begin the work under `if __name__ == '__main__':`" in done.stderr


@pytest.mark.parametrize(("workers", "threads", "flag"), [(0, 1, "--workers"), (1, 0, "--threads")])
def test_numbers_below_one_are_refused(workers: int, threads: int, flag: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        WorkerProcesses(workers, threads)
