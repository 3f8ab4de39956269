"""Random real images of CIFAR-10 under the field's recipe, beside the field's figures: 14 / 26 / 43 % at 1 / 10 / 50 images per class.

Run:   python benchmarks/random_real.py CIFAR10

About 75 minutes on one core for three draws of each; every training is kept in benchmarks/work/random_real, so a stopped run goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from record import record
from rows import kept_rows

from d3hr.comparison.tables import accuracy_table
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.data.dataset import load_images
from d3hr.evaluation.protocols import protocol_named
from d3hr.methods.selection import random_real
from d3hr.progress import OnTerminal

WORK = Path(__file__).parent / "work" / "random_real"
FIELD = {1: 0.144, 10: 0.260, 50: 0.434}
"""Accuracy of random real images in the field's tables (DC, DSA, MTT)."""
DRAWS = {1: 5, 10: 3, 50: 2}


def main(data: str) -> None:
    progress = OnTerminal()
    images, test = load_images(data, progress=progress), load_images(data, split="test", progress=progress)
    protocol = protocol_named("dc").model_copy(update={"checks": 1})
    entries = []
    for ipc, draws in DRAWS.items():
        for seed in range(draws):
            made = random_real(images, WORK / f"ipc{ipc}-seed{seed}", ipc=ipc, image_size=32, seed=seed)
            entries.append(Entry(made, [seed]))
    rows = compare_entries(entries, test, [Setting("convnet3", protocol)], cells=WORK / "cells", progress=progress)
    record(
        "random_real_cifar10",
        {"student": "convnet3", "protocol": protocol.model_dump(mode="json"), "draws": DRAWS},
        {
            "rows": kept_rows(rows),
            "field": FIELD,
            "points_above_the_field": {row.ipc: round(100 * (row.accuracy_mean - FIELD[row.ipc]), 2) for row in rows},
        },
    )
    print(accuracy_table(rows))


if __name__ == "__main__":
    main(sys.argv[1])
