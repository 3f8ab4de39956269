"""Which settings suit a prior that was fitted in two minutes? Chosen on the digits' validation split; the test split is not touched.

Fits the ``tiny`` prior, distils with each candidate setting, and trains ConvNet-3 with hard labels next to both baselines, 6 draws each.
Everything finished is kept in the work folder and used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import d3hr
from benchmarks.harness import WORK, argument_parser, record
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.evaluation.protocols import protocol_named
from d3hr.progress import OnTerminal

DRAWS = range(6)
IPCS = (1, 10)
EXACT: dict[str, Any] = {"strategy": "exact", "exact_std": "population", "inversion_guidance": 1.0, "denoising_guidance": 1.0}
CANDIDATES: dict[str, dict[str, Any]] = {
    "paper": {"preset": "paper"},
    "released": {"preset": "released"},
    "paper, guidance 1": {"preset": "paper", "inversion_guidance": 1.0, "denoising_guidance": 1.0},
    "random draw, guidance 1": {"preset": "paper", **EXACT, "strategy": "random"},
    "exact, guidance 1": {"preset": "paper", **EXACT},
    "exact, guidance 1, level 25 (gentle)": {"preset": "gentle"},
    "exact, guidance 1, level 25, unbiased std": {"preset": "gentle", "exact_std": "unbiased"},
    "search, guidance 1, level 25": {"preset": "gentle", "strategy": "search"},
    "exact, denoising guidance 1.5, level 25": {"preset": "gentle", "denoising_guidance": 1.5},
    "five modes, level 5, temperature 0.85, denoising guidance 4 (mixture)": {"preset": "mixture"},
    "mixture, denoising guidance 1": {"preset": "mixture", "denoising_guidance": 1.0},
    "mixture, temperature 1": {"preset": "mixture", "temperature": 1.0},
    "mixture, temperature 1, rank 16": {"preset": "mixture", "temperature": 1.0, "rank": 16},
}
MEANS: dict[str, dict[str, Any]] = {
    "the mean, level 5, denoising guidance 4": {"preset": "mixture", "modes": 1, "temperature": 0.0},
    "the mean, level 5, denoising guidance 1": {"preset": "mixture", "modes": 1, "temperature": 0.0, "denoising_guidance": 1.0},
    "the mean, level 25": {"preset": "gentle", "temperature": 0.0},
}
"""Candidates for one image per class."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("work", nargs="?", type=Path, default=WORK / "digits_presets", help="folder for everything that is finished")
    work = parser.parse_args(arguments).work
    progress = OnTerminal()
    images, validation = d3hr.load_images("digits"), d3hr.load_images("digits", split="validation")
    prior = d3hr.fit_prior(images, work / "prior", progress=progress)
    protocol = protocol_named("quick")
    figures = []

    def row(name: str, sets: list[d3hr.DistilledSet]) -> None:
        entries = [Entry(distilled, [draw]) for distilled, draw in zip(sets, DRAWS, strict=True)]
        for result in compare_entries(entries, validation, [Setting("convnet3", protocol)], folder=work / "trainings"):
            figures.append({**result.as_row(), "method": name})
            print(f"{name:70s} IPC {result.ipc:2d}  {100 * result.accuracy_mean:.1f} ± {100 * result.accuracy_std:.1f}", flush=True)

    for ipc in IPCS:
        sets = work / f"ipc{ipc}"
        row("random real", [d3hr.random_real(images, sets / f"real{draw}", ipc=ipc, image_size=8, seed=draw) for draw in DRAWS])
        for guidance in (1.0, 1.5, 4.0):
            name = f"prior only, guidance {guidance:g}"
            row(
                name,
                [
                    d3hr.prior_only(prior, images.class_names, sets / f"{name}, {draw}", ipc=ipc, guidance_scale=guidance, seed=draw)
                    for draw in DRAWS
                ],
            )
        for name, settings in {**CANDIDATES, **(MEANS if ipc == 1 else {})}.items():
            first = d3hr.distill(images, prior, sets / f"{name}, 0", ipc=ipc, progress=progress, **settings)
            others = [d3hr.expand(first, prior, sets / f"{name}, {draw}", ipc=ipc, seed=draw) for draw in DRAWS[1:]]
            row(name, [first, *others])
    record("digits_presets", {"protocol": protocol.model_dump(mode="json"), "draws": len(DRAWS), "candidates": CANDIDATES | MEANS}, figures)


if __name__ == "__main__":
    main()
