"""What the package never does, as far as its text can show it."""

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEVER = (
    r"trust_remote_code|\bpickle\b|\btorch\.load\b(?!\([^()]*\bweights_only=True\))|yaml\.(?:load|unsafe_load|full_load)\b"
    r"|(?<![.\w])(?:eval|exec)\(|os\.system|shell=True"
)
"""Ways to run what a file says. ``network.eval()`` is another thing, as is PyTorch's reader that builds tensors and plain values alone."""


def test_nothing_runs_what_a_file_says() -> None:
    """Pieces of work go to processes that d3hr itself started, and back, as pickles through their pipes, and never through a file."""
    shows_a_line = ROOT / "d3hr" / "data" / "pickles.py"  # to people, who may run it themselves
    files = [path for path in sorted((ROOT / "d3hr").rglob("*.py")) if path.parent.name != "execution" and path != shows_a_line]
    lines = [(path, line) for path in files for line in path.read_text().splitlines()]
    assert [f"{path.name}: {line.strip()}" for path, line in lines if re.search(NEVER, line)] == []


def test_what_refuses_pickles_cannot_read_them() -> None:
    tree = ast.parse((ROOT / "d3hr" / "data" / "pickles.py").read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"pathlib", "d3hr.data.headers", "d3hr.data.listing", "d3hr.errors"}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"pickle", "eval", "exec", "__import__", "compile"}


@pytest.mark.parametrize("line", ["pickle.load(f)", "x = eval(text)", "yaml.load(text)", "torch.load(path)", "trust_remote_code=True"])
def test_the_search_would_find_it(line: str) -> None:
    assert re.search(NEVER, line)
    assert not re.search(NEVER, "network.eval().requires_grad_(False)")
    assert not re.search(NEVER, 'torch.load(file, map_location="cpu", weights_only=True)')
    assert re.search(NEVER, "torch.load(file, weights_only=False)")


def test_an_audit_tells_no_answer_from_no_vulnerability(capsys: pytest.CaptureFixture[str]) -> None:
    report = runpy.run_path(str(ROOT / "scripts" / "audit.py"))["report"]
    good, bad = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert (report([good, skipped]), report([good, bad]), report([skipped])) == (0, 1, 0)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "1 packages audited, 0 with known vulnerabilities, 1 could not be audited."
    assert said[1] == "b 2: CVE-1, fixed in: 3"
    assert said[3].startswith("NOTHING WAS AUDITED")
