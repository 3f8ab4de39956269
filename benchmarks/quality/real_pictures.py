"""Draws the first sets of the main matrix side by side, ten images of each class: docs/images/NAME-sets.png.

Reads the sets that ``benchmarks.quality.real_matrix DATA main --prior STEPS --on test`` left in benchmarks/work.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.harness import DOCS, WORK, argument_parser
from benchmarks.quality.real_priors import add_prior_arguments
from d3hr import DistilledSet

SHOWN = [
    ("random_real", 10, "random real images"),
    ("d3hr published", 10, "D3HR as published: one Gaussian per class"),
    ("d3hr chosen", 10, "ten per class: five Gaussians, independent dimensions"),
    ("d3hr chosen", 50, "of fifty per class: ten Gaussians that keep their covariance"),
]
"""Row, images per class, title; of more than ten images, which are in the order of their modes, every n-th is shown."""
COLUMNS, SCALE = 10, 1.5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    add_prior_arguments(parser)
    options = parser.parse_args(arguments)
    name, steps = options.data, options.prior
    folder = WORK / "matrices" / f"{name}-{steps}-test" / "sets"
    paths = [(folder / f"{row}-ipc{ipc}-seed0", ipc, title) for row, ipc, title in SHOWN]
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
    figure.savefig(DOCS / "images" / f"{name}-sets.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
