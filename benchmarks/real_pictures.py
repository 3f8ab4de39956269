"""Shows first sets of the main matrix side by side, ten images of each class: docs/images/NAME-sets.png.

Run:   python benchmarks/real_pictures.py fashion_mnist 4000      (after real_matrix.py fashion_mnist main --prior 4000 --on test)
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure
from real_data import WORK

from d3hr import DistilledSet

SHOWN = [
    ("random_real", 10, "random real images"),
    ("d3hr published", 10, "D3HR as published: one Gaussian a class"),
    ("d3hr chosen", 10, "ten a class: five Gaussians, independent dimensions"),
    ("d3hr chosen", 50, "of fifty a class: ten Gaussians that keep their covariance"),
]
"""Row, images per class, title; of more than ten images, which stand mode by mode, those that are evenly apart."""
COLUMNS, SCALE = 10, 1.5
DOCS = Path(__file__).parent.parent / "docs" / "images"


def main(name: str, steps: int) -> None:
    folder = WORK / "matrices" / f"{name}-{steps}-test" / "sets"
    made = [(folder / f"{row}-ipc{ipc}-seed0", ipc, title) for row, ipc, title in SHOWN]
    sets = [(DistilledSet.load(path), ipc, title) for path, ipc, title in made if path.is_dir()]
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
    figure.savefig(DOCS / f"{name}-sets.png", metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
