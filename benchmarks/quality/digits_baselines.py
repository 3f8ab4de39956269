"""The method next to every baseline that needs no teacher, on the digits: the matrix `baselines` with preset gentle.

Prior, sets and trainings are kept in benchmarks/work/digits_baselines, so a stopped run continues.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import WORK, argument_parser, kept_rows, record
from d3hr import fit_prior, load_images
from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.comparison.tables import accuracy_table
from d3hr.methods.job import MethodInputs
from d3hr.progress import OnTerminal

FOLDER = WORK / "digits_baselines"
SETTINGS = {"preset": "gentle"}


def main(arguments: Sequence[str] | None = None) -> None:
    argument_parser(__doc__).parse_args(arguments)
    progress = OnTerminal()
    images, test = load_images("digits"), load_images("digits", split="test")
    prior = fit_prior(images, FOLDER / "prior", preset="tiny", progress=progress)
    matrix = read_matrix("baselines", {"ipc": [1, 10], "distillation_seeds": [0, 1, 2], "protocols": ["quick"]})
    comparison = compare(matrix, MethodInputs(images, 8, prior=prior), test, FOLDER / "out", settings=SETTINGS, progress=progress)
    rows = kept_rows(comparison.rows)
    record("digits_baselines", {"matrix": matrix.model_dump(mode="json"), "settings": SETTINGS}, rows)
    print(accuracy_table(comparison.rows))


if __name__ == "__main__":
    main()
