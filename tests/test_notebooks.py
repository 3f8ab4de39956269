"""The notebooks run from top to bottom, without a network, and say what their text says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
SECONDS = 300
"""After which a cell that does not end fails the test; on one idle core a whole notebook takes less than 60."""


def read(file: Path) -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(file, as_version=4)


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **values: float) -> str:
    """Run a notebook in a folder, with other values of some of its variables, and return what it prints and shows as text."""
    nbclient = pytest.importorskip("nbclient")
    for variable, text in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "TMPDIR": str(folder)}.items():
        monkeypatch.setenv(variable, text)
    notebook = read(FOLDER / f"{name}.ipynb")
    for variable, value in values.items():
        (cell,) = [cell for cell in notebook.cells if re.search(f"^{variable} = ", cell.source, re.MULTILINE)]
        cell.source = re.sub(f"^{variable} = .*$", f"{variable} = {value}", cell.source, flags=re.MULTILINE)
    nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    cells = [cell for cell in read(file).cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
def test_comparing_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen images are ahead, by an interval that the gains of single seeds surround."""
    said = run("comparing_methods", tmp_path, monkeypatch)
    gains = [float(gain) for gain in re.findall(r"^seed \d: .* gain ([+-][\d.]+) points", said, re.MULTILINE)]
    found = re.search(r"chosen against random: ([+-][\d.]+) points, 95 % interval ([+-][\d.]+) to ([+-][\d.]+), 5 sets\ncertain", said)
    assert len(gains) == 5 and found, said
    mean, low, high = map(float, found.groups())
    assert min(gains) < mean < max(gains) and 0 < low < mean < high
    assert mean == pytest.approx(sum(gains) / 5, abs=0.11)


@pytest.mark.slow
def test_own_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set is chosen of photos in a folder, shows itself with what was tried, and teaches: chance is 20 %."""
    said = run("own_photos", tmp_path, monkeypatch, minutes=0.5)
    assert "ImageData(" in said and "300 images of 5 classes" in said and "DistilledSet(" in said
    assert re.search(r"^random real images +[\d.]+ % over \d set", said, re.MULTILINE), said
    assert re.search(r"^(The set beats|Nothing is surely better than|Nothing beat) random real images", said, re.MULTILINE), said
    assert "On 150 test images, which decided nothing: " in said and re.search(r"^Next: \w+", said, re.MULTILINE), said
    (page,) = tmp_path.rglob("distilled-report.html")
    assert repr(page) in said
    found = re.search(r"^25 images, test accuracy ([\d.]+) %", said, re.MULTILINE)
    assert found and float(found[1]) > 35, said
