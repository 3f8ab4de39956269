"""Bytes of distilled sets by the number of images per class, read from the sets that the matrix `sizes` left.

Run:   python benchmarks/real_storage.py fashion_mnist 4000      (after real_matrix.py fashion_mnist sizes --prior 4000 --on validation)
"""

from __future__ import annotations

import sys

from real_data import WORK
from record import record

from d3hr import DistilledSet


def main(name: str, steps: int) -> None:
    bytes_of: dict[str, dict[int, dict[str, int]]] = {}
    for folder in sorted((WORK / "matrices" / f"{name}-{steps}-validation" / "sets").glob("*-ipc*-seed0")):
        label, _, rest = folder.name.partition("-ipc")
        distilled = DistilledSet.load(folder)
        if label in ("random_real", "d3hr chosen"):
            bytes_of.setdefault(label, {})[int(rest.removesuffix("-seed0"))] = distilled.manifest.storage
    record(f"{name}-storage", {"prior_steps": steps}, {label: dict(sorted(found.items())) for label, found in bytes_of.items()})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
