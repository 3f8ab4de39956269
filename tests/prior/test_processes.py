"""Several processes fit one prior together, as ``accelerate launch`` or ``torchrun`` starts them on one machine."""

import json
import re
import socket
from pathlib import Path

import pytest
import torch

from d3hr import Prior
from d3hr.__main__ import main
from tests.processes import finish, start

pytestmark = pytest.mark.slow

FIT = ["fit", "digits", "--split", "validation", "--autoencoder-steps", "6"]


def fit_by_two(arguments: list[str], log: Path) -> list[int]:
    """Run a command in two processes with the variables that torchrun sets, and return their exit codes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [start(main, arguments, log=log, environment={**common, **rank}) for rank in ranks]
    return [finish(process) for process in processes]


def test_two_processes_make_one_prior(tmp_path: Path) -> None:
    """One speaks and writes, both train: the prior is whole, of finite weights, and the shared batch made the steps asked for."""
    arguments = [*FIT, "--steps", "10", "--json", "--out", str(tmp_path / "prior")]
    assert fit_by_two(arguments, tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()
    printed = (tmp_path / "log").read_text()
    assert json.loads(re.findall(r"^{.*?^}", printed, re.MULTILINE | re.DOTALL)[0])["image_size"] == 8
    assert printed.count("image_size") == printed.count("240 images of 10 classes") == 1
    assert json.loads((tmp_path / "prior" / "fit.json").read_text())["steps"] == {"autoencoder": 6, "transformer": 10}
    prior = Prior.from_pretrained(tmp_path / "prior")
    assert all(torch.isfinite(value).all() for value in prior.network.state_dict().values())
    assert not (tmp_path / "prior.partial").exists()
    assert (tmp_path / "prior" / "settings.yaml").exists()


def test_processes_agree_when_time_is_up(tmp_path: Path) -> None:
    """A fit for a given time ends in both at the same step; a process that went on alone would wait for ever."""
    arguments = [*FIT[:-2], "--max-minutes", "0.05", "--out", str(tmp_path / "prior")]
    assert fit_by_two(arguments, tmp_path / "log") == [0, 0], (tmp_path / "log").read_text()
    assert (tmp_path / "prior" / "model_index.json").exists()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    arguments = [*FIT, "--steps", "4", "--batch-size", "9", "--out", str(tmp_path / "prior")]
    assert fit_by_two(arguments, tmp_path / "log") == [2, 2]
    assert "9 images, 2 processes" in (tmp_path / "log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
