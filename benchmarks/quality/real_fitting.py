"""Accuracy of distilled sets by the minutes for which the prior's transformer was fitted.

Priors, sets and trainings are kept in benchmarks/work, so a stopped run continues.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import WORK, argument_parser, kept_rows, record
from benchmarks.quality.real_matrix import COMMON, matrix_file, protocol_of
from benchmarks.quality.real_priors import fit_one, minutes_of
from benchmarks.real_data import IMAGE_SIZE, NAMES, images_of, real_data
from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.methods.job import MethodInputs
from d3hr.progress import OnTerminal


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("steps", type=int, nargs="+", help="optimiser steps of the priors")
    options = parser.parse_args(arguments)
    name, lengths = options.data, options.steps
    progress = OnTerminal()
    images, validation = images_of(real_data(name), "train", "validation")
    protocol = protocol_of(name)
    matrix = read_matrix(matrix_file("fitting"), {"protocols": [str(protocol)]})
    figures = {}
    for steps in lengths:
        inputs = MethodInputs(images, IMAGE_SIZE, prior=fit_one(name, steps))
        folder = WORK / "matrices" / f"{name}-{steps}-validation"
        rows = compare(matrix, inputs, validation, folder, settings=COMMON, progress=progress).rows
        figures[steps] = {"minutes": minutes_of(name, steps), "rows": kept_rows(rows, "class_names")}
        record(f"{name}-fitting-validation", {"protocol": protocol.name, "common": COMMON}, figures)


if __name__ == "__main__":
    main()
