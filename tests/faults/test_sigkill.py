"""A run that is killed at any moment, again and again, ends with the bytes of one that was left alone."""

from __future__ import annotations

import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.conftest import tree
from tests.faults.conftest import Place
from tests.processes import distill_folder, finish, start, wait_until

KILLS = 30
SETTINGS = {"ipc": 3, "steps": 8, "level": 5, "num_candidates": 1000, "strategy": "search", "batch_size": 2}


def spent(process: BaseProcess, started: float) -> float:
    """Return the seconds that the threads of a process have computed, where the system tells (Linux): other work shifts no moment."""
    try:
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in Path(f"/proc/{process.pid}/task").iterdir()) / 1e9
    except OSError:
        return time.monotonic() - started


def lifetime(process: BaseProcess, kill_at: float = float("inf")) -> float:
    """Watch a process to its end, kill it when it has computed ``kill_at`` seconds, and return how long it has."""
    started, reached = time.monotonic(), 0.0

    def ended() -> bool:
        nonlocal reached
        reached = max(reached, spent(process, started))
        return reached >= kill_at or not process.is_alive()

    wait_until(ended)
    if reached >= kill_at:
        process.kill()  # which does nothing where it has just come through
    finish(process)
    return reached


@pytest.mark.slow
def test_killed_thirty_times(place: Place, tmp_path: Path) -> None:
    """Moments are even over the life of an undisturbed run. What is killed leaves no set; the run that comes through, whenever that is,
    leaves the undisturbed bytes, and the next one starts from nothing. The kills meet the run in many states of its folder."""
    whole, log = tmp_path / "whole", tmp_path / "log"
    given = (place.folder / "images", place.folder / "prior")
    finish(start(distill_folder, *given, tmp_path / "warm", SETTINGS, log=log))  # the helper has imported everything
    life = lifetime(start(distill_folder, *given, whole, SETTINGS, log=log))
    expected = tree(whole)
    draw = random.Random(7)
    out, kills, ended, states = tmp_path / "out", 0, 0, set()
    while kills < KILLS or not ended:
        process = start(distill_folder, *given, out, SETTINGS, log=log)
        lifetime(process, draw.uniform(0, life) if kills < KILLS else float("inf"))
        if process.exitcode == -signal.SIGKILL:
            kills += 1
            states.add(tuple(tree(out.with_name("out.partial"))))
        else:
            assert finish(process) == 0, log.read_text()
            ended += 1
            assert tree(out) == expected
            shutil.rmtree(out)
    assert len(states) > 5
    assert "Traceback" not in log.read_text()
