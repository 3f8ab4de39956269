"""Draws first sets next to each other, ten images of each class: docs/images/NAME-sets.png, or NAME-chosen.png of chosen real images.

Reads the sets that ``benchmarks.quality.real_matrix DATA main --prior STEPS --on test`` left in benchmarks/work, or without a prior those
of ``benchmarks.quality.real_choice DATA choices --on test``.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.harness import DOCS, WORK, argument_parser
from benchmarks.real_data import NAMES
from d3hr import DistilledSet

SHOWN = [
    ("random_real", 10, "random real images"),
    ("d3hr published", 10, "D3HR as published: one Gaussian per class"),
    ("d3hr chosen", 10, "ten per class: five Gaussians, independent dimensions"),
    ("d3hr chosen", 50, "of fifty per class: ten Gaussians that keep their covariance"),
]
"""Row, images per class, title; of more than ten images, which are in the order of their modes, every n-th is shown."""
CHOSEN = [("random_real", 10, "random real images"), ("groups of the easiest", 10, "chosen by d3hr: groups of the easiest real images")]
COLUMNS, SCALE = 10, 1.5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("--prior", type=int, metavar="STEPS", help="the prior of this many optimiser steps")
    options = parser.parse_args(arguments)
    name, steps = options.data, options.prior
    folder = WORK / ("matrices" if steps else "choices") / f"{name}-{f'{steps}-' if steps else ''}test" / "sets"
    paths = [(folder / f"{row}-ipc{ipc}-seed0", ipc, title) for row, ipc, title in (SHOWN if steps else CHOSEN)]
    sets = [(DistilledSet.load(path), ipc, title) for path, ipc, title in paths if path.is_dir()]
    first, *_ = sets[0]
    side = first.images.shape[-1] * COLUMNS * SCALE / 100
    figure = Figure(figsize=(side * len(sets) + 0.9, side + 0.3), dpi=72, layout="constrained")
    for axes, (shown, ipc, title) in zip(figure.subplots(1, len(sets)), sets, strict=True):
        rows = [shown.of_class(label)[:: ipc // COLUMNS].permute(2, 0, 3, 1).flatten(1, 2) for label in shown.class_names]
        for place, row in enumerate(rows):
            axes.imshow(row.numpy(), extent=(0, COLUMNS, len(rows) - place - 1, len(rows) - place), interpolation="nearest")
        axes.set(xlim=(0, COLUMNS), ylim=(0, len(rows)), xticks=[], yticks=[], aspect="equal")
        axes.set_title(title, fontsize="medium")
        if shown is first:
            axes.set_yticks([len(rows) - place - 0.5 for place in range(len(rows))], shown.class_names, fontsize="small")
    figure.savefig(DOCS / "images" / f"{name}-{'sets' if steps else 'chosen'}.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
