"""Work shared out over a Ray cluster: this machine, or as many as there are."""

from __future__ import annotations

import hashlib
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TextIO, cast

from d3hr.errors import ExecutionError, SettingsError
from d3hr.execution.base import Result, Task, Work
from d3hr.execution.processes import RETRIES, cuda_devices
from d3hr.execution.worker import at_least_one, outcome_of, result_of, set_threads, thread_environment

_AHEAD = 2
"""Pieces given out at a time for each that the cluster can do at once, so that no place waits for the next."""
_DEVICE_UNSET = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
"""Ray would change the devices that a process sees from piece to piece, which CUDA heeds only at the first: we choose among all."""


@dataclass(frozen=True)
class RayCluster:
    """The nodes of a Ray cluster, whose processes open the work once each; pieces are Ray tasks, so that any node can do any of them.

    Ray gives a piece out again when its process or node is lost, at most ``RETRIES`` times. A Ray session that this process has already is
    used and left as it is; otherwise one is opened for the length of :meth:`run`.

    Args:
        address: ``auto`` for the cluster that this machine is part of, ``host:port`` for another, ``local`` for one on this machine alone,
            started and ended with the work.
        workers: how many pieces to do at once; by default as many as the cluster has CPUs or GPUs for.
        threads: threads, and so CPUs, of a piece.
        gpus_per_task: GPUs of a piece; by default one where the cluster has any.
    """

    address: str = "auto"
    workers: int | None = None
    threads: int = 1
    gpus_per_task: float | None = None

    def __post_init__(self) -> None:
        at_least_one("--threads", self.threads)
        if self.workers is not None:
            at_least_one("--workers", self.workers)

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield (index of the task, its result) as pieces are done, in any order.

        Raises:
            SettingsError: Ray is not installed, or no node has what a piece needs.
            ExecutionError: there is no such cluster, or a piece was lost more than ``RETRIES`` times.
        """
        ray = _ray()
        parcel = pickle.dumps(work, pickle.HIGHEST_PROTOCOL)
        key = hashlib.sha256(parcel).hexdigest()
        with _session(ray, self.address):
            gpus = self._gpus(ray)
            do = ray.remote(
                num_cpus=self.threads,
                num_gpus=gpus,
                max_calls=0,
                max_retries=RETRIES,
                retry_exceptions=False,
                runtime_env={"env_vars": thread_environment(self.threads) | (_DEVICE_UNSET if gpus else {})},
            )(_do)
            shared, waiting = [ray.put(parcel)], iter(range(len(tasks)))
            under_way: dict[Any, int] = {}
            try:
                while True:
                    room = self._window(ray, gpus) - len(under_way)
                    for _, index in zip(range(room), waiting, strict=False):
                        task = pickle.dumps(tasks[index], pickle.HIGHEST_PROTOCOL)
                        under_way[do.remote(key, shared, task, self.threads)] = index
                    if not under_way:
                        return
                    for done in ray.wait(list(under_way), num_returns=1)[0]:
                        outcome = _outcome(ray, done, under_way[done])
                        yield under_way.pop(done), result_of(outcome)
            finally:
                for unwanted in under_way:
                    ray.cancel(unwanted, force=True)

    @contextmanager
    def session(self) -> Iterator[RayCluster]:
        """Stay connected."""
        with _session(_ray(), self.address):
            yield self

    def _gpus(self, ray: Any) -> float:
        """Return the GPUs that a piece takes, once it is known that some node has what it needs: Ray would wait for one for ever."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = self.gpus_per_task
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
        if not any(node.get("CPU", 0) >= self.threads and node.get("GPU", 0) >= gpus for node in nodes):
            has = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise SettingsError(
                "No node of the Ray cluster has what a piece of work needs.",
                found=f"a piece takes {self.threads} CPUs (--threads) and {gpus:g} GPUs; the nodes have {has}",
                hint="use fewer --threads, or start nodes that have as much.",
            )
        return gpus

    def _window(self, ray: Any, gpus: float) -> int:
        """Return how many pieces to have given out, by what the cluster has now."""
        if self.workers is not None:
            return self.workers
        has = ray.cluster_resources()
        places = has.get("CPU", 0) / self.threads
        return max(1, _AHEAD * int(min(places, has.get("GPU", 0) / gpus) if gpus else places))


_OPENED: dict[tuple[str, int | None], Callable[[Any], Any]] = {}
"""In a process of Ray's: the work that it has open, by its key and device."""


def _do(key: str, shared: list[Any], task: bytes, threads: int) -> bytes:
    """Do one piece in a process of Ray's, with the work opened by an earlier one where there was one."""

    def piece() -> Any:
        set_threads(threads)
        here = key, _take_device()
        if here not in _OPENED:
            _OPENED.clear()
            _OPENED[here] = pickle.loads(_ray().get(shared[0])).open()
        return _OPENED[here](pickle.loads(task))

    return outcome_of(piece)


def _take_device() -> int | None:
    """Make the CUDA device that Ray assigned to this piece, if any, the one that ``cuda`` means, and return its number."""
    assigned, visible = [str(name) for name in _ray().get_gpu_ids()], cuda_devices()
    if not assigned or assigned[0] not in visible:
        return None
    import torch

    device = visible.index(assigned[0])
    torch.cuda.set_device(device)
    return device


def _outcome(ray: Any, done: Any, index: int) -> bytes:
    """Return the outcome of a piece, unless Ray could not get it done."""
    try:
        outcome: bytes = ray.get(done)
    except ray.exceptions.RayError as error:
        raise ExecutionError(
            f"The Ray cluster could not do piece {index} of the work.",
            found=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            hint="where memory ran out, use fewer --workers; where d3hr cannot be imported, install the same version on every node.",
        ) from error
    return outcome


class _Stdout:
    """Standard output as it was, but for what Ray's threads say of lost processes and nodes: that goes to standard error."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        """Write to the one or the other."""
        of_ray = threading.current_thread().name.startswith("ray_")
        written: int = (sys.stderr if of_ray else self._inner).write(text)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def _session(ray: Any, address: str) -> Iterator[None]:
    """Be connected to a cluster: by the session that there is, or by one that ends with the work."""
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
            signal.signal(signal.SIGTERM, on_terminate)  # Ray puts in one of its own
    try:
        with redirect_stdout(cast(TextIO, _Stdout(sys.stdout))):
            yield
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--execution ray needs Ray.", found="not installed", hint="pip install 'd3hr[ray]'") from error
    return ray
