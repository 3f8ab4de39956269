"""Chooses the protocol `short` on random real images and held-out training images alone, before any distilled set is measured with it.

Every training is kept in benchmarks/work/protocol, so a stopped run continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from benchmarks.harness import WORK, argument_parser, kept_rows, record
from benchmarks.real_data import IMAGE_SIZE, NAMES, images_of, real_data
from d3hr import random_real
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.evaluation.protocols import Protocol
from d3hr.progress import OnTerminal

IPC = (1, 10)
SEEDS = (0,)
STEPS, RATES, SHIFTS = (100, 200), (0.01, 0.03), (0.0, 0.125)
BATCH_SIZE = 64


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    name = parser.parse_args(arguments).data
    progress = OnTerminal()
    images, validation = images_of(real_data(name), "train", "validation")
    settings = []
    for steps, rate, shift in product(STEPS, RATES, SHIFTS):
        title = f"{steps} steps, rate {rate:g}, shift {shift:g}"
        settings.append(
            Setting("convnet3", Protocol(name=title, steps=steps, learning_rate=rate, shift=shift, batch_size=BATCH_SIZE, checks=1))
        )
    entries = []
    for ipc, seed in product(IPC, SEEDS):
        folder = WORK / "protocol" / name
        entries.append(Entry(random_real(images, folder / f"ipc{ipc}-seed{seed}", ipc=ipc, image_size=IMAGE_SIZE, seed=seed), [seed]))
    rows = compare_entries(entries, validation, settings, folder=WORK / "protocol" / name / "trainings", progress=progress)
    kept = kept_rows(rows, "class_names", "per_class")
    record(f"{name}-protocol-validation", {"seeds": SEEDS, "batch_size": BATCH_SIZE}, kept)
    for row in rows:
        print(f"{row.protocol.name:32s} IPC {row.ipc:2d}  {100 * row.accuracy_mean:.1f} ± {100 * row.accuracy_std:.1f}")


if __name__ == "__main__":
    main()
