"""How the modules of the package may depend on one another, and how large they may grow."""

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "d3hr").rglob("*.py"))
MOST_LINES = 300


def test_imports_follow_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    """The contracts in pyproject.toml hold: layers, no circle, nothing through the public names. Imports inside functions and for type
    checking count too."""
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out


def test_at_most_eight_loose_modules() -> None:
    assert len([path for path in MODULES if path.parent.name == "d3hr"]) <= 8


def test_modules_are_of_a_readable_length() -> None:
    lengths = {path.relative_to(ROOT / "d3hr").as_posix(): len(path.read_text().splitlines()) for path in MODULES}
    assert {name for name, lines in lengths.items() if lines > MOST_LINES} == set()
