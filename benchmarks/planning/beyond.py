"""What breaks first at a million, a hundred million and ten thousand million images, by ``d3hr plan`` without data.

DiT-XL/2 at 256 pixels on devices that reach 0.4 of 989e12 operations a second (the data sheet of an H100 in bfloat16), all other rates as
measured here or as the plan assumes. Prints the plans, and writes the tables of docs/planning.md; ``--kept`` takes the rates of the kept
result, so that only arithmetic is done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from benchmarks.harness import DOCS, RESULTS, argument_parser, record
from d3hr.distillation.presets import distill_settings
from d3hr.formatting import size_in_words, time_in_words
from d3hr.planning.beyond import ScalePlan, at_scale
from d3hr.planning.counting import Need, PriorNeeds, prior_needs
from d3hr.planning.known_shapes import SHAPES
from d3hr.planning.machines import Machines
from d3hr.planning.rates import Rates, measured_rates
from d3hr.planning.scale import Scale

PRIOR = "facebook/DiT-XL-2-256"
MACHINES = Machines(device_flops=0.4 * 989e12)
SIZES = ((10**6, 1_000, 8), (10**8, 20_000, 1_000), (10**10, 20_000, 1_000))
"""Images, classes, devices."""
WAYS: dict[str, dict[str, Any]] = {
    "all images": {"preset": "paper"},
    "`--tolerance 0.1`": {"preset": "paper", "tolerance": 0.1},
    "`--candidates real`": {"preset": "real", "candidates": "real"},
}
PAGE = DOCS / "planning.md"
START, END = "<!-- tables of benchmarks.planning.beyond -->", "<!-- end -->"


def measured() -> dict[str, Any]:
    """Return what all plans are made of: needs of the prior, rates, as JSON values."""
    shape = replace(SHAPES[PRIOR], dtype=torch.bfloat16)
    needs = prior_needs(shape)
    rates = measured_rates(shape, needs, distill_settings("real", ipc=10, candidates="real"), MACHINES)
    return {"dimensions": shape.dimensions, "image_size": shape.image_size, "needs": asdict(needs), "rates": asdict(rates)}


def plans(of: Mapping[str, Any]) -> dict[str, list[ScalePlan]]:
    """Return the plans of all sizes, by way."""
    parts = {name: Need(**of["needs"][name]) for name in ("network", "encoder", "decoder")}
    needs, rates = PriorNeeds(**parts, weights=of["needs"]["weights"]), Rates(**of["rates"])

    def planned(options: Mapping[str, Any], images: int, classes: int, devices: int) -> ScalePlan:
        settings = distill_settings(**{"ipc": 10, **options})
        return at_scale(Scale(images, classes, devices, settings, of["dimensions"], of["image_size"], needs, MACHINES, rates))

    return {way: [planned(options, *size) for size in SIZES] for way, options in WAYS.items()}


def figures(of: Mapping[str, list[ScalePlan]]) -> dict[str, Any]:
    """Return what is kept of the plans."""
    kept = ("images", "classes", "devices", "stages", "seconds", "designed", "bytes")

    def values(plan: ScalePlan) -> dict[str, Any]:
        limits = [{"name": limit.name, "need": limit.need, "images": limit.images, "broken": limit.broken} for limit in plan.limits]
        return {name: value for name, value in plan.as_values().items() if name in kept} | {"limits": limits}

    return {way: [values(plan) for plan in planned] for way, planned in of.items()}


def tables(of: Mapping[str, list[ScalePlan]]) -> str:
    """Return the tables of the documentation."""
    first = [
        "| images, classes, devices | of each class | time | if all is shared | longest | index per process | merged | what breaks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for place, (images, classes, devices) in enumerate(SIZES):
        for way, planned in of.items():
            plan = planned[place]
            sizes = [size_in_words(plan.bytes[name]) if plan.bytes[name] else "" for name in ("index_per_process", "merged")]
            broken = ", ".join(limit.name.removeprefix("memory: ") for limit in plan.broken) or "nothing"
            times = [time_in_words(seconds) for seconds in (plan.seconds, plan.designed)]
            size = f"{images:,}, {classes:,}, {devices:,}"
            first.append(f"| {' | '.join([size, way, *times, plan.longest.name, *sizes, broken])} |")
    second = ["| what breaks | at images | what is done then | in the code |", "|---|---|---|---|"]
    for limit in of["all images"][-1].limits:
        at = "never" if limit.images is None else f"{limit.images:.2g}"
        second.append(f"| {limit.name} | {at} | {limit.remedy.words} | {'yes' if limit.remedy.built else '**no**'} |")
    third = ["| stage | by | work | time | if shared |", "|---|---|---|---|---|"]
    for stage in of["all images"][-1].stages:
        cells = [stage.name, stage.who, stage.work, time_in_words(stage.seconds), time_in_words(stage.designed)]
        third.append(f"| {' | '.join(cells)} |")
    images, classes, devices = SIZES[-1]
    return "\n".join(
        [
            *first,
            "",
            f"The stages of {images:,} images, all of each class:",
            "",
            *third,
            "",
            f"At how many images each part breaks, in {classes:,} classes on {devices:,} devices:",
            "",
            *second,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--kept", action="store_true", help="take the rates of the kept result")
    kept = parser.parse_args(arguments).kept
    of = json.loads((RESULTS / "beyond.json").read_text())["settings"] if kept else measured()
    planned = plans(of)
    for plan in (plan for every in planned.values() for plan in every):
        print(plan.as_text(), end="\n\n")
    biggest = planned["all images"][-1]
    ratio = biggest.seconds / planned["`--tolerance 0.1`"][-1].seconds
    print(f"{biggest.scale.images:,} images: all of each class takes {ratio:.1f} times as long as a sample; as the code runs both")
    record("beyond", of, figures(planned))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n\n{tables(planned)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
