"""The tables of docs/planning.md are those of the kept result, and that is what ``plan`` computes from its rates today."""

import json

from benchmarks.harness import RESULTS
from benchmarks.planning.beyond import PAGE, figures, plans, tables


def test_the_tables_are_computed() -> None:
    kept = json.loads((RESULTS / "beyond.json").read_text(encoding="utf-8"))
    planned = plans(kept["settings"])
    assert json.loads(json.dumps(figures(planned))) == kept["figures"], "run python -m benchmarks.planning.beyond --kept"
    assert tables(planned) in PAGE.read_text(encoding="utf-8")
