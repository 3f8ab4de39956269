"""The benchmarks can be started, and benchmarks/README.md leads to each of them and to each kept result."""

from __future__ import annotations

import fnmatch
import importlib
import re
from pathlib import Path

import pytest

from d3hr.comparison.matrix import matrix_names, read_matrix

ROOT = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = [
    f"{file.parent.name}.{file.stem}" for folder in ("speed", "quality", "planning") for file in sorted((ROOT / folder).glob("[a-z]*.py"))
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{script}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    assert (module.__doc__ or "no docstring").splitlines()[0] in capsys.readouterr().out


def test_the_readme_lists_every_script() -> None:
    assert sorted(re.findall(r"^\| `((?:speed|planning|quality)\.\w+)", README, re.MULTILINE)) == sorted(SCRIPTS)


def test_the_readme_lists_every_kept_result() -> None:
    """A name in the table may hold DATA for a data set, MATRIX for a matrix, and ON for the images that were tested on."""
    listed = [re.sub("DATA|MATRIX|ON", "*", name) for name in re.findall(r"`([\w-]+)\.json`", README)]
    kept = [file.stem for file in (ROOT / "results").glob("*.json")]
    assert [name for name in kept if not any(fnmatch.fnmatch(name, pattern) for pattern in listed)] == []


@pytest.mark.parametrize("file", sorted((ROOT / "matrices").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_matrix_can_be_read_and_has_a_name_of_its_own(file: Path) -> None:
    assert read_matrix(file).methods
    assert file.stem not in matrix_names()
