"""Tasks that run on a Ray cluster: this machine, or any number of machines."""

from __future__ import annotations

import hashlib
import math
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO, cast

from d3hr.data.ahead import MOST_DECODERS
from d3hr.errors import ExecutionError, SettingsError, require_at_least
from d3hr.execution.base import Result, Task, Work
from d3hr.execution.processes import RETRIES
from d3hr.execution.worker import cuda_devices, pickle_outcome, pickle_work, set_threads, thread_environment, unpickle_outcome

_AHEAD = 2
"""Tasks submitted for each that the cluster can run at once, so that no process waits for its next task."""
_ASK_EVERY = 0.5
"""Seconds for which what the cluster has is remembered: asking takes about 1 ms, a third of all that a task costs."""
_DEVICES_UNCHANGED = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
"""Ray would change CUDA_VISIBLE_DEVICES from task to task, but CUDA reads it only once: we choose among all devices instead."""


@dataclass(frozen=True)
class RayCluster:
    """The nodes of a Ray cluster, whose processes open the work once each; our tasks are Ray tasks, so any node can run any of them.

    Ray runs a task again when its process or node is lost, at most ``RETRIES`` times. A Ray session that this process already has is used
    and left open; otherwise one is opened for the duration of :meth:`run` or :meth:`session`.

    Args:
        address: ``auto`` for the cluster that this machine is part of, ``host:port`` for another, ``local`` for one on this machine alone,
            started and ended with the work.
        workers: how many tasks to run at once; by default as many as the cluster has CPUs or GPUs for.
        threads: threads, and so CPUs, of a task.
        gpus_per_task: GPUs of a task; by default one if the cluster has any.
    """

    address: str = "auto"
    workers: int | None = None
    threads: int = 1
    gpus_per_task: float | None = None

    def __post_init__(self) -> None:
        require_at_least("--threads", self.threads)
        if self.workers is not None:
            require_at_least("--workers", self.workers)

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """As :meth:`Execution.run`; the cluster failed if there is none at the address, or a task was lost more than ``RETRIES`` times.

        Raises:
            SettingsError: Ray is not installed, or no node has what a task needs.
        """
        ray = _ray()
        pickled_work = pickle_work(work)
        key = hashlib.sha256(pickled_work).hexdigest()
        with _connection(self.address):
            gpus = self._gpus()
            remote = ray.remote(
                num_cpus=self.threads,
                num_gpus=gpus,
                max_calls=0,
                max_retries=RETRIES,
                retry_exceptions=True,  # of Ray's own calls, which break where a node goes: those of the work are in the outcome
                runtime_env={"env_vars": thread_environment(self.threads, self._decoders(gpus)) | (_DEVICES_UNCHANGED if gpus else {})},
            )(_run_task)
            shared, waiting = [ray.put(pickled_work)], iter(range(len(tasks)))
            running: dict[Any, int] = {}  # Ray's reference to an outcome -> index of its task
            window, asked = 0, -math.inf
            try:
                while True:
                    if (now := time.monotonic()) - asked > _ASK_EVERY:
                        window, asked = self._window(gpus), now
                    for index in islice(waiting, max(0, window - len(running))):
                        task = pickle.dumps(tasks[index], pickle.HIGHEST_PROTOCOL)
                        running[remote.remote(key, shared, task, self.threads)] = index
                    if not running:
                        return
                    (finished,), _ = ray.wait(list(running), num_returns=1)
                    outcome = _outcome(finished, running[finished])
                    yield running.pop(finished), unpickle_outcome(outcome)
            finally:
                for unwanted in running:
                    ray.cancel(unwanted, force=True)

    @contextmanager
    def session(self) -> Iterator[RayCluster]:
        """Stay connected from one run to the next."""
        with _connection(self.address):
            yield self

    def _gpus(self) -> float:
        """Return the GPUs of a task, and refuse one that no node has the resources for: Ray would wait for such a node for ever."""
        nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
        gpus = self.gpus_per_task
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
        if not any(node.get("CPU", 0) >= self.threads and node.get("GPU", 0) >= gpus for node in nodes):
            resources = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise SettingsError(
                "No node of the Ray cluster has what a task needs.",
                found=f"a task takes {self.threads} CPUs (--threads) and {gpus:g} GPUs; the nodes have {resources}",
                hint="use fewer --threads, or start nodes that have as much.",
            )
        return gpus

    def _decoders(self, gpus: float) -> int:
        """Return how many threads of a task decode images, so that the tasks of a node fill its processors once."""
        nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
        able = [(node["CPU"], node["GPU"] / gpus if gpus else math.inf) for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU")]
        shares = [cpus / min(cpus / self.threads, most, self.workers or math.inf) for cpus, most in able]
        return max(1, min(MOST_DECODERS, int(min(shares, default=self.threads))))

    def _window(self, gpus: float) -> int:
        """Return how many tasks to have submitted at a time, by what the cluster has now."""
        if self.workers is not None:
            return self.workers
        resources = _ray().cluster_resources()
        slots = resources.get("CPU", 0) / self.threads
        if gpus:
            slots = min(slots, resources.get("GPU", 0) / gpus)
        return max(1, _AHEAD * int(slots))


_OPENED: dict[tuple[str, int | None], Callable[[Any], Any]] = {}
"""In a process of Ray: the work that is open there, by its key and device; at most one."""


def _run_task(key: str, shared: list[Any], task: bytes, threads: int) -> bytes:
    """Run one task in a process of Ray and return its outcome. Work that an earlier task opened there stays open.

    Raises:
        Exception: a call of Ray failed, and the task is to be run again; errors of the work are in the outcome.
    """
    opened = key, use_assigned_device()
    work = None if opened in _OPENED else _ray().get(shared[0])

    def run() -> Any:
        set_threads(threads)
        if work is not None:
            _OPENED.clear()
            _OPENED[opened] = pickle.loads(work).open()
        return _OPENED[opened](pickle.loads(task))

    return pickle_outcome(run)


def use_assigned_device() -> int | None:
    """Make the CUDA device that Ray assigned to the current task the one that ``cuda`` means, and return its number; None without one."""
    assigned, visible = [str(name) for name in _ray().get_gpu_ids()], cuda_devices()
    if not assigned or assigned[0] not in visible:
        return None
    import torch

    device = visible.index(assigned[0])
    torch.cuda.set_device(device)
    return device


def _outcome(reference: Any, index: int) -> bytes:
    """Return the outcome of a task, or raise an :class:`ExecutionError` if Ray could not run it."""
    ray = _ray()
    try:
        outcome: bytes = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise ExecutionError(
            f"The Ray cluster could not run task {index}.",
            found=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            hint="where memory ran out, use fewer --workers; where d3hr cannot be imported, install the same version on every node.",
        ) from error
    return outcome


class _Stdout:
    """Standard output, except that what threads of Ray print about lost processes and nodes goes to standard error."""

    def __init__(self, inner: TextIO) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write to one of the two and return the number of characters."""
        of_ray = threading.current_thread().name.startswith("ray_")
        return (sys.stderr if of_ray else self._inner).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def _connection(address: str) -> Iterator[None]:
    """Be connected to a cluster: by the Ray session that exists, or by one that ends with the context."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        local = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, logging_level="error", log_to_driver=False, **local)
    except ConnectionError as error:
        raise ExecutionError(
            f"There is no Ray cluster at --address {address}.",
            found=str(error).strip().splitlines()[0],
            hint="start one with `ray start --head`, join other machines as it says, or use --address local for this machine alone.",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread() and on_terminate is not None:
            signal.signal(signal.SIGTERM, on_terminate)  # Ray installs a handler of its own
    try:
        with redirect_stdout(cast(TextIO, _Stdout(sys.stdout))):
            yield
    finally:
        ray.shutdown()


def _ray() -> Any:
    """Return the module ``ray``, an optional dependency."""
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--execution ray needs Ray.", found="not installed", hint="pip install 'd3hr[ray]'") from error
    return ray
