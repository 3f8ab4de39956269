"""The process that runs parts: each measurement is kept as soon as it ends, and one that fails is kept with its error."""

from __future__ import annotations

import gc
import importlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from benchmarks.gpu_parts.scales import SCALES, Scale
from benchmarks.gpu_parts.schedule import Plan, write_json
from d3hr.execution.memory import device_name, release_unused, total_bytes
from d3hr.planning.measure import seconds_of
from d3hr.prior.networks import default_device

Figures = dict[str, Any]
Measurements = Iterator[tuple[str, Callable[[], Figures]]]
"""Names of measurements, and what makes them; a part is a function that yields these, in the order of their worth."""
BROKEN = 3
"""Exit code of a process whose device answers no more: the next part needs another process."""


class NotNow(Exception):
    """Why a measurement is left out."""


@dataclass(frozen=True)
class Job:
    """What a part is given.

    Attributes:
        plan: the run.
        scale: sizes.
        data: what d3hr opens as images, with splits train and test.
        ends: time (of ``time.time``) at which the part should have ended.
    """

    plan: Plan
    scale: Scale
    data: str | None
    ends: float

    @property
    def device(self) -> torch.device:
        """Where to measure."""
        return default_device()

    @property
    def left(self) -> float:
        """Seconds that are left for the part."""
        return self.ends - time.time()

    def figures(self, part: str, measurement: str) -> Figures:
        """Return the figures of another part; none, where it has not come so far."""
        found: Figures = self.plan.kept(part).get("figures", {}).get(measurement, {})
        return found

    def require(self, seconds: float) -> None:
        """Leave a measurement out that needs more time than is left."""
        if self.plan.full and self.left < seconds:
            raise NotNow(f"only {self.left:.0f} s left")


def work(plan: Plan, until: float, scale: str, data: str | None) -> None:
    """Run the parts of a plan until a time (of ``time.time``), whatever happens in one of them."""
    for name in plan.parts:
        limit = plan.limit(name, until - time.time())
        if plan.too_short(name, limit):
            plan.keep(name, {"state": "skipped", "seconds": 0.0, "error": f"only {limit:.0f} s left"})
            continue
        job = Job(plan, SCALES[scale], data, time.time() + limit)
        _describe(job)
        _run(name, job)


def _run(name: str, job: Job) -> None:
    """Run a part and keep each of its measurements."""
    began = time.time()
    content: dict[str, Any] = {"state": "running", "ends": job.ends, "figures": {}, "errors": {}}
    job.plan.keep(name, content)

    def keep(state: str = "running", **more: Any) -> None:
        content.update({"state": state, "seconds": round(time.time() - began, 1)}, **more)
        job.plan.keep(name, content)

    try:
        part = importlib.import_module(f"benchmarks.gpu_parts.{name}")
        for measurement, take in part.measurements(job):
            if job.left <= 0:
                keep("out of time", error=f"before {measurement}")
                return
            try:
                content["figures"][measurement] = take()
            except NotNow as reason:
                content["figures"][measurement] = {"left_out": str(reason)}
            except Exception as error:  # of whatever a device or a library raises
                content["errors"][measurement] = f"{type(error).__name__}: {error}"[:2000]
                content["figures"][measurement] = {"failed": type(error).__name__}
                keep()
                _require_device(job)
            keep()
            release_unused(job.device.type)
    except Exception as error:
        keep("failed", error=f"{type(error).__name__}: {error}"[:2000])
        return
    finally:
        gc.collect()
    failed = len(content["errors"])
    keep("failed" if failed and failed == len(content["figures"]) else "done", **({"error": f"{failed} failed"} if failed else {}))


def _require_device(job: Job) -> None:
    """End the process where an error has left its device in a state in which nothing works."""
    try:
        seconds_of(lambda: float(torch.ones(1, device=job.device).sum()), job.device)
    except RuntimeError:
        os._exit(BROKEN)


def _describe(job: Job) -> None:
    """Keep what the parts run on."""
    card = {"compute capability": "{}.{}".format(*torch.cuda.get_device_capability())} if job.device.type == "cuda" else {}
    versions = {package: version(package) for package in ("d3hr", "diffusers", "torch")}
    about = {"device": device_name(job.device), "GiB": round(total_bytes(job.device) / 2**30, 1), **card, **versions}
    write_json(job.plan.out / "machine.json", {**about, "cuda": torch.version.cuda})
