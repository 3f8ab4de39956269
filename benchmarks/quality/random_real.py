"""Random real images of CIFAR-10 under the field's recipe, next to the field's figures: 14 / 26 / 43 % at 1 / 10 / 50 images per class.

Every training is kept in benchmarks/work/random_real, so a stopped run continues.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import WORK, argument_parser, kept_rows, record
from d3hr.comparison.tables import accuracy_table
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.data.opening import load_images
from d3hr.evaluation.protocols import protocol_named
from d3hr.methods.selection import random_real
from d3hr.progress import OnTerminal

FOLDER = WORK / "random_real"
FIELD = {1: 0.144, 10: 0.260, 50: 0.434}
"""Accuracy of random real images in the field's tables (DC, DSA, MTT)."""
DRAWS = {1: 5, 10: 3, 50: 2}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("source", help="CIFAR-10: a folder, or a Hub id")
    source = parser.parse_args(arguments).source
    progress = OnTerminal()
    images, test = load_images(source, progress=progress), load_images(source, split="test", progress=progress)
    protocol = protocol_named("dc").model_copy(update={"checks": 1})
    entries = []
    for ipc, draws in DRAWS.items():
        for seed in range(draws):
            chosen = random_real(images, FOLDER / f"ipc{ipc}-seed{seed}", ipc=ipc, image_size=32, seed=seed)
            entries.append(Entry(chosen, [seed]))
    rows = compare_entries(entries, test, [Setting("convnet3", protocol)], folder=FOLDER / "trainings", progress=progress)
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
    main()
