"""A whole distillation on a Ray cluster of two nodes, of which processes and then a node are lost, ends with the bytes of this process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from d3hr import Prior, distill, load_images
from d3hr.execution.base import Result, Task, Work
from d3hr.execution.ray import RayCluster
from tests.conftest import MakeFolder, tree, untrained_prior

ray = pytest.importorskip("ray")

QUICK: dict[str, Any] = {"steps": 6, "statistics_level": 3, "denoising_level": 3, "num_candidates": 50, "ipc": 2, "batch_size": 1}


class Struck:
    """A cluster that is struck after the first result of each stage."""

    def __init__(self, cluster: RayCluster, strikes: Iterator[Callable[[], None]]) -> None:
        self.cluster, self.strikes = cluster, strikes

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        results = self.cluster.run(work, tasks)
        yield next(results)
        next(self.strikes)()
        yield from results

    @contextmanager
    def session(self) -> Iterator["Struck"]:
        with self.cluster.session():
            yield self


@pytest.mark.slow
def test_processes_and_a_node_are_lost(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Every process that works on statistics is killed after the first result, and the second node goes while images are generated."""
    from ray.cluster_utils import Cluster

    folder = image_folder({"ant": 20, "bee": 12, "cat": 9})
    untrained_prior(("ant", "bee", "cat")).save_pretrained(tmp_path / "prior")
    images, prior = load_images(folder), Prior.from_pretrained(tmp_path / "prior")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has
    try:
        here = distill(images, prior, tmp_path / "here", **QUICK)
    finally:
        torch.set_num_threads(threads)

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second, killed = cluster.add_node(num_cpus=1), []

    session = cluster.head_node.get_session_dir_path()

    def kill_processes() -> None:
        """Kill them at work or between two tasks, when Ray calls them idle."""
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                at_work = process.name().startswith(("ray::_run_task", "ray::IDLE"))
                if at_work and any(session in " ".join(parent.cmdline()) for parent in process.parents()):
                    process.kill()
                    killed.append(process.pid)

    strikes = [kill_processes, lambda: None, lambda: cluster.remove_node(second, allow_graceful=False)]
    try:
        made = distill(images, prior, tmp_path / "there", execution=Struck(RayCluster(cluster.address), iter(strikes)), **QUICK)
    finally:
        cluster.shutdown()
    assert killed and not cluster.worker_nodes
    assert tree(made.path) == tree(here.path)
