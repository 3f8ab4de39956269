"""How far are class statistics from bfloat16 networks from those from float32, on real images and a fitted prior?

The same images of each class are inverted by the same prior in both precisions; statistics are float64 in both. The deviation of means is
in units of sigma, that of standard deviations a share, next to what the finite number of images leaves uncertain.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

import d3hr
from benchmarks.harness import argument_parser, record
from benchmarks.speed.fast_preset import deviation, standard_errors
from d3hr.prior.model import PRECISIONS
from d3hr.prior.networks import default_device


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("prior", help="folder or Hub id of the prior")
    parser.add_argument("images", help="real images of the prior's classes")
    parser.add_argument("--presets", nargs="+", default=["fast", "gentle"])
    parser.add_argument("--classes", type=int, default=2, help="how many of them")
    parser.add_argument("--per-class", type=int, default=50, help="images of each class")
    parser.add_argument("--device", default=default_device().type)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images, figures = d3hr.load_images(options.images), {}
    some = images.only(
        {name: range(options.per_class if place < options.classes else 2) for place, name in enumerate(images.class_names)}, "some"
    )
    for preset in options.presets:
        statistics = {}
        with tempfile.TemporaryDirectory() as folder:
            for precision in ("fp32", "bf16"):
                prior = d3hr.Prior.from_pretrained(options.prior, device=options.device, dtype=PRECISIONS[precision])
                made = d3hr.distill(some, prior, Path(folder) / precision, preset=preset, store="statistics")
                statistics[precision] = {name: made.statistics[name] for name in images.class_names[: options.classes]}
        row = figures[preset] = {
            "deviation": deviation(statistics["bf16"], statistics["fp32"]),
            "standard_error": standard_errors(statistics["fp32"]),
        }
        off, chance = row["deviation"], row["standard_error"]
        print(
            f"{preset}: means off by {off['mean_in_sigma']:.4f} sigma, spreads by {off['std_share']:.2%}; by chance, with "
            f"{options.per_class} images, {chance['mean_in_sigma']:.3f} and {chance['std_share']:.1%}",
            flush=True,
        )
    record("precision", {**vars(options), "prior": Path(options.prior).name, "images": Path(options.images).name}, figures)


if __name__ == "__main__":
    main()
