"""Ctrl-C and SIGTERM end a run at once; the same command goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from d3hr.__main__ import main
from tests.conftest import tree
from tests.faults.conftest import Place
from tests.processes import finish, start, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(place: Place, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Exit code 128 + signal, a line that says how to go on, no traceback, nothing half-written, and the undisturbed bytes in the end."""
    out, partial, log = tmp_path / "out", tmp_path / "out.partial", tmp_path / "log"
    process = start(main, place.distill(out), log=log)
    wait_for(lambda: (partial / "statistics" / "000000.safetensors").exists(), process)
    assert process.pid is not None
    for _ in range(10):  # Python drops an interrupt that lands in a destructor; a person would press again
        if process.is_alive():
            os.kill(process.pid, number)
            process.join(10)
    assert finish(process) == code, log.read_text()
    said = log.read_text()
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not out.exists()
    assert partial.exists()
    assert not list(partial.rglob("*.tmp"))
    assert finish(start(main, place.distill(out), log=log)) == 0
    assert finish(start(main, place.distill(tmp_path / "whole"), log=log)) == 0
    assert tree(out / "train") == tree(tmp_path / "whole" / "train")


def test_sigterm_is_given_back(place: Place, tmp_path: Path) -> None:
    """After a command, the signal means what it meant before."""
    before = signal.getsignal(signal.SIGTERM)
    assert main(place.distill(tmp_path / "out", steps=4, level=2, candidates=10)) == 0
    assert signal.getsignal(signal.SIGTERM) == before
