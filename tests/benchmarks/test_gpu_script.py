"""benchmarks/gpu.py runs whole on a CPU, keeps each part by itself, and goes on after one that fails, ends its process or hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts.schedule import PARTS, Plan, summarise, supervise
from d3hr import Prior
from d3hr.prior.repository import weight_files

FIGURES = {
    "agreement": ("search bf16", "largest"),
    "peak": ("tf32", "tflops"),
    "inversion": ("drawing, compiled, guidance 4", "images_per_second"),
    "rates": ("student step with CutMix bf16", "milliseconds"),
    "fit": ("prior", "reconstruction_psnr_db"),
    "sets": ("mixture with real candidates, set 0", "accuracy"),
}
"""A measurement of each part, and a figure of it."""


def run(out: Path, *arguments: str) -> dict[str, Any]:
    """Run the script in a folder of its own, and return what each part kept."""
    command = [sys.executable, gpu.__file__, "--scale", "tiny", "--minutes", "20", "--out", str(out), *arguments]
    done = subprocess.run(command, cwd=out.parent, check=True, capture_output=True, text=True)
    assert "summary.json" in {file.name for file in out.iterdir()}
    kept: dict[str, Any] = json.loads((out / "summary.json").read_text())["parts"]
    assert all(f"{name}: {part['state']}" in done.stdout for name, part in kept.items())
    return kept


@pytest.mark.slow
def test_it_runs_whole_in_small(tmp_path: Path) -> None:
    kept = run(tmp_path / "out", "--data", "digits")
    assert list(kept) == list(PARTS)
    assert {name: (part["state"], part.get("error")) for name, part in kept.items()} == dict.fromkeys(PARTS, ("done", None))
    for name, (measurement, figure) in FIGURES.items():
        assert kept[name] == json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert kept[name]["figures"][measurement][figure] is not None
    if not torch.cuda.is_available():
        assert {figures["largest"] for name, figures in kept["agreement"]["figures"].items() if name.endswith("fp32")} == {0.0}
    prior = Prior.from_pretrained(tmp_path / "out" / "prior", dtype=torch.bfloat16)
    assert all(file.stat().st_size < 16e6 for part in ("transformer", "vae") for file in weight_files(tmp_path / "out" / "prior" / part))
    assert (prior.licence, len(prior.class_names)) == ("apache-2.0", 10)


@pytest.mark.slow
def test_a_part_that_fails_is_kept_with_its_error(tmp_path: Path) -> None:
    kept = run(tmp_path / "out", "--data", str(tmp_path / "nowhere"), "--parts", "fit", "peak")
    assert [(name, part["state"]) for name, part in kept.items()] == [("peak", "done"), ("fit", "failed")]
    assert "nowhere" in kept["fit"]["errors"]["prior"]


@pytest.mark.slow
def test_weights_go_into_small_files(tmp_path: Path, digits_prior: Prior) -> None:
    from benchmarks.gpu_parts.fit import write_small_files

    assert digits_prior.source
    fitted = Path(digits_prior.source)
    (tmp_path / "fit.json").write_text("{}")
    (fitted / "fit.json").write_text("{}")
    write_small_files(fitted, tmp_path / "small", "40KB")
    files = weight_files(tmp_path / "small" / "transformer")
    assert len(files) > 2
    assert all(file.stat().st_size < 50e3 for file in files)
    again = Prior.from_pretrained(tmp_path / "small", dtype=torch.bfloat16)
    for name, value in digits_prior.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value.to(torch.bfloat16))


def worker(out: Path, body: str) -> Callable[[Sequence[str]], subprocess.Popen[bytes]]:
    """Return what starts a process that marks the first of its parts as running, does something, and finishes the rest."""
    code = f"""
import json, pathlib, sys, time
out, parts = pathlib.Path(sys.argv[1]), sys.argv[2:]
def keep(part, state, ends=0):
    (out / "new").write_text(json.dumps({{"state": state, "ends": ends, "figures": {{"a": {{"b": 1}}}}}}))
    (out / "new").replace(out / f"{{part}}.json")
for part in parts:
    keep(part, "running")
    if part == "peak":
        {body}
    keep(part, "done")
"""
    return lambda parts: subprocess.Popen([sys.executable, "-c", code, str(out), *parts])


@pytest.mark.parametrize(
    ("body", "why"), [("sys.exit(3)", "its process ended with code 3"), ("time.sleep(600)", "it took much longer than its time")]
)
def test_the_parts_after_one_that_ends_its_process_or_hangs_get_another(tmp_path: Path, body: str, why: str) -> None:
    plan = Plan(tmp_path, ["agreement", "peak", "rates"], 60.0, full=False)
    plan.clear()
    supervise(plan, worker(tmp_path, body), until=1e12, grace=0.0 if "sleep" in body else 1e12)
    kept = {name: plan.kept(name) for name in plan.parts}
    assert {name: part["state"] for name, part in kept.items()} == {"agreement": "done", "peak": "stopped", "rates": "done"}
    assert (kept["peak"]["error"], kept["peak"]["figures"]) == (why, {"a": {"b": 1}})
    assert f"peak: stopped, 0 s ({why})" in summarise(plan)


def test_each_part_has_its_share_and_the_fit_what_is_left() -> None:
    plan = Plan(Path(), list(PARTS), 480.0, full=True)
    assert plan.limit("peak", 400.0) == pytest.approx(14.4)
    assert plan.limit("fit", 230.0) == pytest.approx(230.0 - 0.2 * 480)
    assert plan.limit("sets", 50.0) == 50.0
    assert plan.too_short("sets", 29.0) and not plan.too_short("sets", 31.0)
    assert sum(part.share or 0.0 for part in PARTS.values()) <= 0.8


def test_a_checkout_that_is_not_installed_has_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(gpu, "version", unknown)
    gpu.carry_packages(tmp_path, None)
    (about,) = tmp_path.glob("d3hr-*.dist-info/METADATA")
    assert f"Version: {about.parent.name.removeprefix('d3hr-').removesuffix('.dist-info')}" in about.read_text()
