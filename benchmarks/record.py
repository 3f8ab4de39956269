"""Keeps a benchmark's figures with what is needed to trust and repeat them."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from d3hr.fileio.atomic import write_json

RESULTS = Path(__file__).parent / "results"


def _asked(*command: str) -> str:
    return subprocess.run(["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


_CHANGED = _asked("diff", "--name-only", "HEAD", "--", ":/", ":!/benchmarks/results")
COMMIT = _asked("rev-parse", "--short", "HEAD") + ("-dirty" if _CHANGED else "")
"""What the benchmark runs from, dirty if other files than results were changed: asked when it starts, as the checkout may move on."""


def record(name: str, settings: dict[str, Any], figures: Any) -> Path:
    """Write ``results/<name>.json`` with command, commit, settings, machine and date, and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    script = Path(sys.argv[0]).name
    write_json(
        path,
        {
            "command": shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
            "commit": COMMIT,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "versions": {package: version(package) for package in ("d3hr", "torch", "diffusers")},
            "settings": settings,
            "figures": figures,
        },
    )
    return path
