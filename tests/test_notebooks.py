"""The notebooks run from top to bottom, without a network, and say what their text says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))
SECONDS = 300
"""After which a cell that does not end fails the test; on one idle core a whole notebook takes less than 60."""


def read(file: Path) -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(file, as_version=4)


def run(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a notebook in a folder and return what it prints and shows as text."""
    nbclient = pytest.importorskip("nbclient")
    for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "TMPDIR": str(folder)}.items():
        monkeypatch.setenv(name, value)
    notebook = read(file)
    nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    cells = [cell for cell in read(file).cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_comparing_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen images are ahead, by an interval that the gains of single seeds surround."""
    said = run(NOTEBOOKS[0], tmp_path, monkeypatch)
    gains = [float(gain) for gain in re.findall(r"^seed \d: .* gain ([+-][\d.]+) points", said, re.MULTILINE)]
    found = re.search(r"chosen against random: ([+-][\d.]+) points, 95 % interval ([+-][\d.]+) to ([+-][\d.]+), 5 sets\ncertain", said)
    assert len(gains) == 5 and found, said
    mean, low, high = map(float, found.groups())
    assert min(gains) < mean < max(gains) and 0 < low < mean < high
    assert mean == pytest.approx(sum(gains) / 5, abs=0.11)
