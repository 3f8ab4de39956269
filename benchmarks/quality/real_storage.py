"""Bytes of distilled sets by the number of images per class, read from the sets that the matrix `sizes` left.

They are those of ``benchmarks.quality.real_matrix DATA sizes --prior STEPS --on validation``.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import WORK, argument_parser, record
from benchmarks.quality.real_priors import add_prior_arguments
from d3hr import DistilledSet


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    add_prior_arguments(parser)
    options = parser.parse_args(arguments)
    name, steps = options.data, options.prior
    bytes_of: dict[str, dict[int, dict[str, int]]] = {}
    for folder in sorted((WORK / "matrices" / f"{name}-{steps}-validation" / "sets").glob("*-ipc*-seed0")):
        label, _, rest = folder.name.partition("-ipc")
        distilled = DistilledSet.load(folder)
        if label in ("random_real", "d3hr chosen"):
            bytes_of.setdefault(label, {})[int(rest.removesuffix("-seed0"))] = distilled.manifest.storage
    record(f"{name}-storage", {"prior_steps": steps}, {label: dict(sorted(sizes.items())) for label, sizes in bytes_of.items()})


if __name__ == "__main__":
    main()
