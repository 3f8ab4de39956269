from pathlib import Path

import pytest

from d3hr.cli.output import sibling


def test_results_about_a_set_are_next_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the set is the current folder; a Hub id has no folder, so its results are in the current one."""
    (tmp_path / "sets" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert sibling("sets/one", "-evaluation") == Path("sets/one-evaluation")
    assert sibling("sets/one/", "-evaluation") == Path("sets/one-evaluation")
    assert sibling("user/images", "-report.html") == Path("images-report.html")
    monkeypatch.chdir(tmp_path / "sets" / "one")
    assert sibling(".", "-diagnosis") == tmp_path / "sets" / "one-diagnosis"
