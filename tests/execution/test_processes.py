"""Worker processes do what this process would do, and leave nobody behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d3hr.errors import ClassMismatch, SettingsError
from d3hr.execution import processes
from d3hr.execution.here import Here
from d3hr.execution.processes import WorkerProcesses, cuda_devices
from d3hr.execution.work import Execution
from tests.execution.works import Awkward, CannotOpen, Echo, Failing, FloatSums, Openings, Sleeping, Surroundings, alive, wait_until

ROOT = Path(__file__).parents[2]


def test_here_works_in_order_and_no_further_than_it_is_asked(tmp_path: Path) -> None:
    pieces = Here().run(Openings(tmp_path), range(5))
    assert not list(tmp_path.iterdir())
    assert [next(pieces)[0], next(pieces)[0]] == [0, 1]
    assert [index for index, _ in pieces] == [2, 3, 4]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_are_those_of_this_process(workers: int) -> None:
    """Sums of floats are equal to the last bit only if each is added in the same order: seven tasks on 1 to 3 workers."""
    tasks = range(7)
    assert dict(WorkerProcesses(workers).run(FloatSums(), tasks)) == dict(Here().run(FloatSums(), tasks))


def test_no_tasks_need_no_workers(tmp_path: Path) -> None:
    assert list(WorkerProcesses(2).run(Openings(tmp_path), [])) == []
    assert not list(tmp_path.iterdir())


def test_each_worker_opens_the_work_once(tmp_path: Path) -> None:
    """Twelve tasks, two workers: at most two processes, none of them this one, each with one opening however many pieces it did."""
    results = [result for _, result in WorkerProcesses(2).run(Openings(tmp_path), range(12))]
    assert {openings for _, openings in results} == {1}
    found = {process for process, _ in results}
    assert len(found) <= 2
    assert os.getpid() not in found


def test_large_tasks_and_results_do_not_block_each_other() -> None:
    """8 MB each way is far over what a pipe holds, so both ends writing at once would wait for ever."""
    tasks = [bytes([index]) * 8_000_000 for index in range(5)]
    assert dict(WorkerProcesses(2).run(Echo(), tasks)) == dict(enumerate(tasks))


def test_threads_and_devices_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers and two devices, named as the parent's CUDA_VISIBLE_DEVICES names them: worker i sees device i mod 2."""
    monkeypatch.setattr(processes, "cuda_devices", lambda: ["3", "GPU-77"])
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    seen = [around for _, around in WorkerProcesses(3, threads=2).run(Surroundings(), range(40))]
    assert {(around["omp"], around["threads"]) for around in seen} == {("2", 2)}
    devices = {around["process"]: around["devices"] for around in seen}
    assert set(devices.values()) <= {"3", "GPU-77"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


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


@pytest.mark.parametrize("execution", [Here(), WorkerProcesses(1)], ids=["here", "processes"])
def test_our_errors_arrive_as_they_are(execution: Execution) -> None:
    with pytest.raises(ClassMismatch, match=r"a set has \[ant\]; a teacher has \[bee\]"):
        list(execution.run(Failing(), ["ours"]))
    with pytest.raises(ClassMismatch):
        list(execution.run(CannotOpen(), [1, 2]))


def test_other_errors_bring_the_traceback_they_had() -> None:
    with pytest.raises(ZeroDivisionError, match="^by nought$") as caught:
        list(WorkerProcesses(1).run(Failing(), ["by nought"]))
    assert "works.py" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match=f"^{Awkward.__name__}: one$") as caught_awkward:
        list(WorkerProcesses(1).run(Failing(), ["awkward"]))
    assert "works.py" in str(caught_awkward.value.__cause__)
    with pytest.raises(AttributeError, match="pickle"):
        list(WorkerProcesses(1).run(Failing(), ["unpicklable"]))


def begun(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


def started(folder: Path) -> tuple[Iterator[tuple[int, float]], list[int]]:
    """Two workers of which one has done its piece and the other sleeps for ten minutes."""
    pieces = WorkerProcesses(2).run(Sleeping(folder), [0.0, 600.0, 600.0])
    next(pieces)
    wait_until(lambda: len(begun(folder)) == 2)
    return pieces, begun(folder)


def test_nobody_is_left_behind_when_the_rest_is_not_wanted(tmp_path: Path) -> None:
    pieces, workers = started(tmp_path)
    assert all(alive(worker) for worker in workers)
    pieces.close()  # type: ignore[attr-defined]
    assert not any(alive(worker) for worker in workers)


def test_nobody_is_left_behind_when_a_piece_fails(tmp_path: Path) -> None:
    pieces = WorkerProcesses(2).run(Sleeping(tmp_path), [600.0, "no number"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        list(pieces)
    assert not any(alive(worker) for worker in begun(tmp_path))


def parent(folder: Path) -> subprocess.Popen[str]:
    """Another process, in a group of its own as a terminal gives it, with two workers that sleep."""
    command = [sys.executable, "-m", "tests.execution.works", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT, env=environment)
    wait_until(lambda: len(begun(folder)) == 2)
    return process


def test_ctrl_c_ends_everybody_and_only_the_parent_speaks_of_it(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group: workers leave it to the parent, whose one traceback is the only one."""
    with parent(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, text = process.communicate(timeout=20)
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
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1
    assert "begin the work under `if __name__ == '__main__':`" in done.stderr


@pytest.mark.parametrize(("workers", "threads", "flag"), [(0, 1, "--workers"), (1, 0, "--threads")])
def test_numbers_below_one_are_refused(workers: int, threads: int, flag: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        WorkerProcesses(workers, threads)
