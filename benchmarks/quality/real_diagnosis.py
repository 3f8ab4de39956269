"""Diagnoses the first sets of the main matrix: why do some teach less than random real images?

Reads the sets that ``benchmarks.quality.real_matrix DATA main --prior STEPS --on test`` left in benchmarks/work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness import WORK, argument_parser, record
from benchmarks.quality.real_priors import add_prior_arguments, prior_folder
from benchmarks.real_data import images_of, real_data
from d3hr import DistilledSet, ImageData, Prior, diagnose

IPC = 10
ROWS = ("random_real", "k_means", "prior_only", "forward_noise", "d3hr published", "d3hr exact", "d3hr chosen")


def figures(distilled: DistilledSet, images: ImageData, prior: Prior) -> dict[str, Any]:
    """Return what a diagnosis says before anything is trained."""
    diagnosis = diagnose(distilled, images, prior, levels=3).as_values()
    verdicts = {verdict["signature"]: {key: verdict[key] for key in ("status", "evidence")} for verdict in diagnosis["verdicts"]}
    return {
        "verdicts": verdicts,
        **{name: diagnosis[name] for name in ("labels", "diversity", "coverage", "distances", "copying", "round_trip")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    add_prior_arguments(parser)
    options = parser.parse_args(arguments)
    name, steps = options.data, options.prior
    (images,) = images_of(real_data(name), "train")
    prior = Prior.from_pretrained(prior_folder(name, steps))
    sets = WORK / "matrices" / f"{name}-{steps}-test" / "sets"
    diagnoses = {row: figures(DistilledSet.load(sets / f"{row}-ipc{IPC}-seed0"), images, prior) for row in ROWS}
    record(f"{name}-diagnosis", {"prior_steps": steps, "ipc": IPC}, diagnoses)


if __name__ == "__main__":
    main()
