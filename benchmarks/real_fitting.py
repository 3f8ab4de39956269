"""Accuracy of distilled sets against the minutes for which the prior's transformer was fitted.

Run:   python benchmarks/real_fitting.py fashion_mnist 500 1000 2000 4000      (optimiser steps)

Priors, sets and trainings are kept in benchmarks/work, so a stopped run goes on.
"""

from __future__ import annotations

import sys

from real_data import IMAGE_SIZE, WORK, images_of, real_data
from real_matrix import COMMON, HERE, protocol_of
from real_priors import fit_one, minutes_of
from record import record
from rows import kept_rows

from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.methods.registry import Materials
from d3hr.progress import OnTerminal


def main(name: str, lengths: list[int]) -> None:
    progress = OnTerminal()
    images, validation = images_of(real_data(name), "train", "validation")
    protocol = protocol_of(name)
    matrix = read_matrix(HERE / "matrices" / "fitting.yaml", {"protocols": [str(protocol)]})
    found = {}
    for steps in lengths:
        materials = Materials(images, IMAGE_SIZE, prior=fit_one(name, steps))
        folder = WORK / "matrices" / f"{name}-{steps}-validation"
        rows = compare(matrix, materials, validation, folder, settings=COMMON, progress=progress).rows
        found[steps] = {"minutes": minutes_of(name, steps), "rows": kept_rows(rows, "class_names")}
        record(f"{name}-fitting-validation", {"protocol": protocol.name, "common": COMMON}, found)


if __name__ == "__main__":
    main(sys.argv[1], [int(steps) for steps in sys.argv[2:]])
