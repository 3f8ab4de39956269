"""Several processes fit one prior together, as ``accelerate launch`` or ``torchrun`` starts them on one machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from d3hr import Prior

FIT = ["-m", "d3hr", "fit", "digits", "--split", "validation", "--autoencoder_steps", "6"]


def launch(arguments: list[str], out: Path, *, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(processes),
        *arguments,
        "--out",
        str(out),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)


def test_two_processes_make_one_prior(tmp_path: Path) -> None:
    """One speaks and writes, both train: the prior is whole, of finite weights, and the shared batch made the steps asked for."""
    done = launch([*FIT, "--steps", "10", "--json"], tmp_path / "prior")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image_size"] == 8
    assert done.stderr.count("240 images of 10 classes") == 1
    assert json.loads((tmp_path / "prior" / "fit.json").read_text())["steps"] == {"autoencoder": 6, "transformer": 10}
    prior = Prior.from_pretrained(tmp_path / "prior")
    assert all(torch.isfinite(value).all() for value in prior.transformer.state_dict().values())
    assert not (tmp_path / "prior.partial").exists()
    assert (tmp_path / "prior" / "settings.yaml").exists()


def test_processes_agree_when_time_is_up(tmp_path: Path) -> None:
    """A fit for a given time ends in both at the same step; a process that went on alone would wait for ever."""
    done = launch([*FIT[:-2], "--max_minutes", "0.05"], tmp_path / "prior")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "prior" / "model_index.json").exists()


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    done = launch([*FIT, "--steps", "4", "--batch_size", "9"], tmp_path / "prior")
    assert done.returncode != 0
    assert "9 images, 2 processes" in done.stderr
    assert not list(tmp_path.iterdir())
