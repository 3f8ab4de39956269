"""Real processes to kill, each forked in a moment from a helper that has imported everything and computed nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import accelerate  # noqa: F401 (imported once, for all that are forked)
import datasets  # noqa: F401
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel  # noqa: F401

import d3hr
from d3hr import Prior, distill, load_images
from d3hr.__main__ import main
from d3hr.distillation.grouping import search_mixtures
from d3hr.sets import writer

ROOT = Path(__file__).parents[1]
PATIENCE = 120.0
"""Seconds after which something that is waited for will not come."""
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", __name__])


def start(function: Callable[..., int], *arguments: object, log: Path, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start ``function`` in a process of its own, whose exit code is what it returns and whose output goes to ``log``."""
    process = _CONTEXT.Process(target=_run, args=(function, arguments, log, environment or {}))
    with patch.dict(os.environ, PYTHONPATH=str(ROOT)):  # what the helper imports is this code
        process.start()
    return process


def finish(process: BaseProcess) -> int:
    """Wait for a process and return its exit code."""
    process.join(PATIENCE)
    assert process.exitcode is not None
    return process.exitcode


def kill(process: BaseProcess) -> None:
    """Kill a process that is under way, and wait until it is gone."""
    process.kill()
    assert finish(process) == -signal.SIGKILL


def wait_until(happened: Callable[[], object], *, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until something has happened, while what brings it about is ``alive``."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert alive() and time.monotonic() < end
        time.sleep(0.001)


def wait_for(happened: Callable[[], object], process: BaseProcess) -> None:
    """Wait until something has happened that a living process brings about."""
    wait_until(happened, alive=process.is_alive)


def distill_folder(images: Path, prior: Path, out: Path, settings: dict[str, Any]) -> int:
    """Distil, without the command around it."""
    distill(load_images(images), Prior.from_pretrained(prior), out, **settings)
    return 0


def main_paused_before_search(arguments: list[str], gate: Path) -> int:
    """Run a command that stops before its search until ``gate`` exists, and tells by ``gate``.reached that it is there."""

    def wait(*inner: Any, **named: Any) -> dict[str, int]:
        gate.with_suffix(".reached").touch()
        wait_until(gate.exists)
        return search_mixtures(*inner, **named)

    with patch.object(writer, "search_mixtures", wait):
        return main(arguments)


def _run(function: Callable[..., int], arguments: tuple[object, ...], log: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests were started in the background
    assert Path(d3hr.__file__).is_relative_to(ROOT)
    code = function(*arguments)
    sys.stdout.flush()
    sys.exit(code)
