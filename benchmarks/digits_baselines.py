"""The method beside every baseline that needs no teacher, on the digits: the matrix `baselines` with preset gentle.

Run:   python benchmarks/digits_baselines.py

About 20 minutes on one core; prior, sets and trainings are kept in benchmarks/work/digits_baselines, so a stopped run goes on.
"""

from __future__ import annotations

from pathlib import Path

from record import record
from rows import kept_rows

from d3hr import fit_prior, load_images
from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.comparison.tables import accuracy_table
from d3hr.methods.registry import Materials
from d3hr.progress import OnTerminal

WORK = Path(__file__).parent / "work" / "digits_baselines"
SETTINGS = {"preset": "gentle"}


def main() -> None:
    progress = OnTerminal()
    images, test = load_images("digits"), load_images("digits", split="test")
    prior = fit_prior(images, WORK / "prior", preset="tiny", progress=progress)
    matrix = read_matrix("baselines", {"ipc": [1, 10], "distillation_seeds": [0, 1, 2], "protocols": ["quick"]})
    found = compare(matrix, Materials(images, 8, prior=prior), test, WORK / "out", settings=SETTINGS, progress=progress)
    rows = kept_rows(found.rows)
    record("digits_baselines", {"matrix": matrix.model_dump(mode="json"), "settings": SETTINGS}, rows)
    print(accuracy_table(found.rows))


if __name__ == "__main__":
    main()
