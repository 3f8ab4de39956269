"""Work on a Ray cluster of two nodes, of which processes and one node are lost, gives what this process gives."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d3hr.errors import ClassMismatch, ExecutionError, SettingsError
from d3hr.execution import ray as execution_ray
from d3hr.execution.base import Serial
from d3hr.execution.ray import RayCluster
from tests.execution.works import CannotOpen, Disconnecting, DyingSums, FloatSums, ObservedSums, StuckOnNode

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray")

TASKS = range(8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def session(cluster: Any) -> Iterator[Any]:
    """A session of the user's own, so that all tests share the processes that have started."""
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    yield cluster
    ray.shutdown()


def expected() -> dict[int, float]:
    return dict(Serial().run(FloatSums(), TASKS))


def test_a_process_that_dies_takes_no_result_with_it(cluster: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Task 2 kills the process that runs it the first time. In a session of our own, Ray prints nothing to standard output, and leaves
    neither a session nor a signal handler behind."""
    assert not ray.is_initialized()
    before = signal.getsignal(signal.SIGTERM)
    results = list(RayCluster(cluster.address).run(DyingSums(tmp_path, frozenset({2})), TASKS))
    assert len(list(tmp_path.iterdir())) == 1
    assert len(results) == len(TASKS)
    assert dict(results) == expected()
    assert capfd.readouterr().out == ""
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before


def test_results_are_those_of_this_process(session: Any, tmp_path: Path) -> None:
    """To the last bit; each process opens the work once, with the number of threads given; a session that existed stays."""
    results = dict(RayCluster(threads=1).run(ObservedSums(tmp_path), TASKS))
    assert {index: total for index, (total, _) in results.items()} == expected()
    assert {(around.openings, around.omp, around.threads) for _, around in results.values()} == {(1, "1", 1)}
    assert ray.is_initialized()


def test_a_task_that_always_kills_ends_the_run(session: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(execution_ray, "RETRIES", 0)
    with pytest.raises(ExecutionError, match="could not run task 0") as caught:
        list(RayCluster(workers=1).run(DyingSums(tmp_path, frozenset({0}), always=True), TASKS))
    assert "WorkerCrashedError" in caught.value.found


def test_a_call_of_ray_that_fails_takes_no_result_with_it(session: Any, tmp_path: Path) -> None:
    """A process can outlive its node, but not reach Ray any more: its task is run again, and its error is not one of the work."""
    assert dict(RayCluster(workers=1).run(Disconnecting(tmp_path), TASKS)) == expected()
    assert dict(RayCluster().run(FloatSums(), TASKS)) == expected()
    assert any(tmp_path.iterdir())


def test_our_errors_are_raised_unchanged(session: Any) -> None:
    with pytest.raises(ClassMismatch, match=r"a set has \[ant\]; a teacher has \[bee\]") as caught:
        list(RayCluster().run(CannotOpen(), TASKS))
    assert type(caught.value) is ClassMismatch


@pytest.mark.parametrize("needs", [{"threads": 2}, {"gpus_per_task": 1.0}])
def test_tasks_that_fit_on_no_node_are_refused(session: Any, needs: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="1 CPUs and 0 GPUs; 1 CPUs and 0 GPUs"):
        next(RayCluster(**needs).run(FloatSums(), TASKS))


def test_a_node_that_is_lost_takes_no_result_with_it(session: Any, tmp_path: Path) -> None:
    """The second node is removed in the middle of a task that does not end; the first node runs that task again."""
    (lost,) = session.worker_nodes
    results = []
    for result in RayCluster().run(StuckOnNode(tmp_path, lost.node_id), TASKS):
        results.append(result)
        if session.worker_nodes:
            session.remove_node(lost, allow_graceful=False)
    assert len(results) == len(TASKS)
    assert dict(results) == expected()


def test_cuda_means_the_device_that_ray_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of devices 2 and 3, which the node was started with, Ray assigns 3: the second that the process sees, number 1."""
    selected: list[int] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", selected.append)
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: ["3"])
    assert execution_ray.use_assigned_device() == 1
    assert selected == [1]
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    assert execution_ray.use_assigned_device() is None
