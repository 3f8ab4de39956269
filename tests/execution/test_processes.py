"""Worker processes return what this process would return, and none of them is left behind."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from d3hr.errors import ClassMismatch, ExecutionError, SettingsError
from d3hr.execution import processes
from d3hr.execution.base import Execution, Serial
from d3hr.execution.processes import WorkerProcesses
from d3hr.execution.worker import cuda_devices, device_here, name_elsewhere, pickle_outcome, unpickle_outcome
from tests.execution.works import Awkward, CannotOpen, Echo, FloatSums, Interrupted, ObservedSums, Sleeping, alive, wait_until

ROOT = Path(__file__).parents[2]


def test_this_process_runs_tasks_in_order_and_only_when_requested(tmp_path: Path) -> None:
    results = Serial().run(ObservedSums(tmp_path), range(5))
    assert not list(tmp_path.iterdir())
    assert [next(results)[0], next(results)[0]] == [0, 1]
    assert [index for index, _ in results] == [2, 3, 4]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_results_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int) -> None:
    """Seven sums of floats, equal to the last bit, whatever the number of workers; each opens the work once, with the number of threads
    given, and of two devices worker i sees device i mod 2."""
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


@pytest.mark.slow
def test_large_tasks_and_results_do_not_block_each_other() -> None:
    """8 MB each way is far more than a pipe holds, so if both ends wrote at once they would wait for ever."""
    tasks = [bytes([index]) * 8_000_000 for index in range(3)]
    assert dict(WorkerProcesses(1).run(Echo(), tasks)) == dict(enumerate(tasks))


@pytest.mark.parametrize(
    ("variable", "count", "expected"),
    [(None, 2, ["0", "1"]), ("3, GPU-77", 2, ["3", "GPU-77"]), ("1,-1,0", 1, ["1"]), ("", 0, []), (None, 0, [])],
)
def test_devices_are_those_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, count: int, expected: list[str]
) -> None:
    """CUDA counts the devices that it shows to a process: entries up to the first that is invalid."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert cuda_devices() == expected


def divide_by_zero() -> float:
    return 1 / 0


def raise_awkward() -> None:
    raise Awkward("one", "two")


def test_errors_of_other_libraries_keep_their_traceback() -> None:
    """Those that cannot be pickled become a RuntimeError with their name and text."""
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        unpickle_outcome(pickle_outcome(divide_by_zero))
    assert "in divide_by_zero" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match=r"^Awkward: one$") as caught_awkward:
        unpickle_outcome(pickle_outcome(raise_awkward))
    assert "in raise_awkward" in str(caught_awkward.value.__cause__)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        unpickle_outcome(pickle_outcome(lambda: lambda: None))


def test_work_that_cannot_be_sent_is_refused_with_the_reason() -> None:
    """As a data set with a transform that is a lambda is, before any process is started."""
    with pytest.raises(ExecutionError, match="cannot be sent") as caught:
        list(WorkerProcesses(1).run(FloatSums(lambda: 1), [1]))  # type: ignore[arg-type]
    assert "lambda" in caught.value.found and "lambda" in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("execution", [Serial(), WorkerProcesses(1)], ids=["serial", "processes"])
def test_an_error_while_the_work_is_opened_is_raised_unchanged(execution: Execution) -> None:
    with pytest.raises(ClassMismatch, match=r"a set has \[ant\]; a teacher has \[bee\]"):
        list(execution.run(CannotOpen(), [1, 2]))


def started(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


@pytest.mark.slow
def test_no_worker_is_left_behind_when_the_remaining_results_are_not_wanted(tmp_path: Path) -> None:
    """Of two workers one has finished a task, and the other is in a task of ten minutes or is still starting."""
    results = WorkerProcesses(2).run(Sleeping(tmp_path), [0.0, 600.0, 600.0])
    next(results)
    workers = [child.pid for child in multiprocessing.active_children() if child.pid]
    assert len(workers) == 2 and all(alive(worker) for worker in workers)
    results.close()  # type: ignore[attr-defined]
    assert not any(alive(worker) for worker in workers)


@pytest.mark.slow
def test_no_worker_is_left_behind_when_a_task_fails(tmp_path: Path) -> None:
    """Its error, one of ours, is raised unchanged."""
    with pytest.raises(ClassMismatch, match=r"a set has \[ant\]; a teacher has \[bee\]"):
        list(WorkerProcesses(2).run(Sleeping(tmp_path), [600.0, -1.0]))
    assert not any(alive(worker) for worker in started(tmp_path))


def parent(folder: Path) -> subprocess.Popen[str]:
    """Another process, in a group of its own as a terminal gives it, with a worker that sleeps."""
    command = [sys.executable, "-m", "tests.execution.works", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT, env=environment)
    wait_until(lambda: len(started(folder)) == 1)
    return process


@pytest.mark.slow
def test_workers_leave_ctrl_c_to_their_parent() -> None:
    assert dict(WorkerProcesses(1).run(Interrupted(), [4, 5])) == {0: 4, 1: 5}


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_only_the_parent_reports_it(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group; the parent's traceback is the only one."""
    with parent(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, text = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert text.count("KeyboardInterrupt") == 1
    assert not any(alive(worker) for worker in started(tmp_path))


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with parent(tmp_path) as process:
        process.kill()
    wait_until(lambda: not any(alive(worker) for worker in started(tmp_path)))


@pytest.mark.slow
def test_a_script_that_starts_work_while_it_is_imported_gets_an_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from d3hr.execution.processes import WorkerProcesses\n"
        "from tests.execution.works import FloatSums\n"
        "list(WorkerProcesses(1).run(FloatSums(), [1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert finished.returncode == 1
    assert "begin the work under `if __name__ == '__main__':`" in finished.stderr


@pytest.mark.parametrize(("workers", "threads", "flag"), [(0, 1, "--workers"), (1, 0, "--threads")])
def test_numbers_below_one_are_refused(workers: int, threads: int, flag: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        WorkerProcesses(workers, threads)


def test_devices_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """``cuda`` is the GPU in use, a number another one, which a worker of one GPU does not have."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    names = ("cpu", "mps", "cuda", "cuda:0", "cuda:1")
    assert [str(device_here(name)) for name in names] == ["cpu", "mps", "cuda:1", "cuda:0", "cuda:1"]
    assert [name_elsewhere(torch.device(name)) for name in names] == ["cpu", "mps", "cuda", "cuda:0", "cuda"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(SettingsError, match=r"(?s)no device cuda:1 here.*1 CUDA device in this process"):
        device_here("cuda:1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"(?s)no device cuda here.*0 CUDA devices in this process"):
        device_here("cuda")
    with pytest.raises(SettingsError, match=r"(?s)Unknown device.*gpu.*cuda:1"):
        device_here("gpu")
