"""Diagnoses the first sets of the main matrix: why do some teach less than random real images?

Run:   python benchmarks/real_diagnosis.py fashion_mnist 4000      (after real_matrix.py fashion_mnist main --prior 4000 --on test)
"""

from __future__ import annotations

import sys
from typing import Any

from real_data import WORK, images_of, real_data
from real_priors import prior_folder
from record import record

from d3hr import DistilledSet, ImageData, Prior, diagnose

IPC = 10
ROWS = ("random_real", "k_means", "prior_only", "forward_noise", "d3hr published", "d3hr exact", "d3hr chosen")


def figures(distilled: DistilledSet, images: ImageData, prior: Prior) -> dict[str, Any]:
    """Return what a diagnosis says before anything is trained."""
    found = diagnose(distilled, images, prior, levels=3).as_values()
    verdicts = {verdict["signature"]: {key: verdict[key] for key in ("status", "evidence")} for verdict in found["verdicts"]}
    return {
        "verdicts": verdicts,
        **{name: found[name] for name in ("labels", "diversity", "coverage", "distances", "copying", "round_trip")},
    }


def main(name: str, steps: int) -> None:
    (images,) = images_of(real_data(name), "train")
    prior = Prior.from_pretrained(prior_folder(name, steps))
    sets = WORK / "matrices" / f"{name}-{steps}-test" / "sets"
    found = {row: figures(DistilledSet.load(sets / f"{row}-ipc{IPC}-seed0"), images, prior) for row in ROWS}
    record(f"{name}-diagnosis", {"prior_steps": steps, "ipc": IPC}, found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
