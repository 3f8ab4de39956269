"""Ten thousand small tasks on a simulated Ray cluster that loses nodes: what giving out a task costs, and that no result is lost.

Five nodes of one CPU each on this machine. A task is as large as a chunk of a distillation is in results and far smaller in work: mean and
deviation of 16 random latents of 4,096 dimensions, 64 KiB. All run three times: without Ray, on the cluster, and on the cluster while its
nodes are killed one after the other, in the middle of tasks, until the first is left. Every result is compared with that of the first run,
byte for byte. Prints the overhead of a task, the wall-clock beyond the pure work over the cores that share it, and the ratio to no Ray.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.harness import argument_parser, peak_mib, record
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.execution.base import SERIAL, Execution
from d3hr.execution.ray import RayCluster
from d3hr.seeds import generator_for

DIMENSIONS, LATENTS = 4_096, 16
Digests = dict[int, bytes]


@dataclass(frozen=True)
class Moments:
    """Task n: the Gaussian of latents that follow from n."""

    def open(self) -> Callable[[int], ClassGaussian]:
        return self.measure

    def measure(self, seed: int) -> ClassGaussian:
        latents = torch.randn(LATENTS, DIMENSIONS, generator=generator_for("many tasks", seed))
        return ClassGaussian.empty(DIMENSIONS).update(latents)


@dataclass
class Losses:
    """Kills nodes of a cluster, in threads, whenever enough results have come.

    Attributes:
        cluster: a ``ray.cluster_utils.Cluster``.
        after: numbers of results after which a node is lost, ascending.
    """

    cluster: Any
    after: list[int]
    _threads: list[threading.Thread] = field(default_factory=list)

    def seen(self, results: int) -> None:
        """Take note of how many results have come."""
        if self.after and results >= self.after[0]:
            self.after.pop(0)
            self._threads.append(threading.Thread(target=self._kill, args=(self.cluster.worker_nodes.copy().pop(),)))
            self._threads[-1].start()

    def wait(self) -> None:
        """Return when the nodes are gone."""
        for thread in self._threads:
            thread.join()

    def _kill(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)


def ran(execution: Execution, tasks: int, losses: Losses | None = None) -> tuple[Digests, float]:
    """Return the digest of every result, and the seconds from the first result to the last: starting is not counted.

    Raises:
        AssertionError: a result came twice, or did not come.
    """
    from benchmarks.planning.many_tasks import Moments  # other processes know it by this name, not as that of the main program

    digests, started = Digests(), time.monotonic()
    for index, gaussian in execution.run(Moments(), range(tasks)):
        assert index not in digests, f"task {index} came twice"
        if not digests:
            started = time.monotonic()
        digests[index] = hashlib.sha256(gaussian.mean.numpy().tobytes() + gaussian.std.numpy().tobytes()).digest()
        if losses is not None:
            losses.seen(len(digests))
    assert digests.keys() == set(range(tasks)), "a task did not come"
    return digests, time.monotonic() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--tasks", type=int, default=10_000, help="number of tasks (default: 10,000)")
    parser.add_argument("--losses", type=int, default=4, help="nodes to lose (default: 4)")
    given = parser.parse_args(arguments)
    from ray.cluster_utils import Cluster

    torch.set_num_threads(1)
    nodes = given.losses + 1
    cores = min(nodes, len(os.sched_getaffinity(0)))
    expected, alone = ran(SERIAL, given.tasks)
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(given.losses):
            cluster.add_node(num_cpus=1)
        with RayCluster(cluster.address).session() as session:
            ran(session, 10 * nodes)  # processes have started
            whole, quiet = ran(session, given.tasks)
            before = peak_mib()
            losses = Losses(cluster, [given.tasks * (place + 1) // nodes for place in range(given.losses)])
            struck, losing = ran(session, given.tasks, losses)
            losses.wait()
            left = len(cluster.worker_nodes)
    finally:
        cluster.shutdown()
    assert whole == expected == struck, "a result differs"
    assert not left, f"{left} nodes were not lost"
    print(f"{given.tasks:,} tasks without Ray: {alone:.1f} s, {1000 * alone / given.tasks:.2f} ms each")
    overheads = {}
    for name, words, seconds in (("quiet", f"on {nodes} nodes", quiet), ("losing", f"losing {given.losses} of them", losing)):
        overheads[name] = 1000 * (seconds - alone / cores) / given.tasks
        print(f"{words}: {seconds:.1f} s, {seconds / alone:.2f} times as long; {overheads[name]:.2f} ms a task beyond the pure work")
    print("all results came, each once, equal to the last byte")
    print(f"memory of this process grew by {peak_mib() - before:.0f} MiB in the last run")
    record(
        "many_tasks",
        {"tasks": given.tasks, "nodes": nodes, "cores": cores, "dimensions": DIMENSIONS, "latents": LATENTS},
        {
            "seconds": {"serial": round(alone, 2), "quiet": round(quiet, 2), "losing": round(losing, 2)},
            "ms_a_task_beyond_work": {name: round(value, 3) for name, value in overheads.items()},
            "ratio": {"quiet": round(quiet / alone, 3), "losing": round(losing / alone, 3)},
            "lost": given.losses,
            "results": len(struck),
        },
    )


if __name__ == "__main__":
    main()
