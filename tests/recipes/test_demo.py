import json
from pathlib import Path

import pytest

from d3hr.__main__ import main
from d3hr.prior.presets import PRESETS
from d3hr.recipes import demo
from tests.conftest import SMALL, tree


@pytest.mark.slow
def test_the_demo_runs_whole_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With small networks and few steps: every file that the README names, three methods at two IPCs, and nothing done twice."""
    short = {name: getattr(SMALL, name).model_copy(update={"steps": 10}) for name in ("autoencoder_training", "transformer_training")}
    monkeypatch.setitem(PRESETS, "tiny", SMALL.model_copy(update=short))
    (tmp_path / "brief.yaml").write_text("base: quick\nsteps: 4\nchecks: 1\n")
    monkeypatch.setattr(demo, "PROTOCOL", str(tmp_path / "brief.yaml"))
    monkeypatch.setattr(demo, "DISTILLATION_SEEDS", 2)
    out = tmp_path / "d3hr-demo"
    assert main(["demo", "--out", str(out)]) == 0
    assert "index.html" in capsys.readouterr().out
    rows = json.loads((out / "results.json").read_text())
    assert {(row["method"], row["ipc"]) for row in rows} == {(method, ipc) for method in demo.NAMES for ipc in (1, 10)}
    assert all(row["seeds"] == 2 and 0 <= row["accuracy_mean"] <= 1 for row in rows)
    assert (out / "contact-sheet.png").read_bytes() == (out / "distilled" / "contact-sheet.png").read_bytes()
    before = tree(out)
    assert main(["demo", "--out", str(out)]) == 0
    assert tree(out) == before
    assert main(["demo", "--out", str(out), "--seed", "1"]) == 2
