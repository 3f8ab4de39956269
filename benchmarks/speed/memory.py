"""Peak memory of ``distill`` by number of images (constant: nothing holds the data set) and of classes (two vectors per class).

Folders of small PNG files go through the whole of ``distill`` with an untrained prior, each in a fresh process that reports its peak
resident memory. Images: five classes of 8 pixels, 64 dimensions. Classes: 4 images of 64 pixels each, 4,096 dimensions as in
DiT-XL/2 at 256 pixels, where mean and standard deviation in float64 are 64 KiB per class.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import d3hr
from benchmarks.harness import argument_parser, in_fresh_process, peak_mib, record, write_random_images, write_untrained_prior
from d3hr.prior.presets import PRESETS

IMAGES = (1_000, 10_000, 100_000)
CLASSES = (10, 100, 1_000)
PER_CLASS = 4
QUICK = {"steps": 10, "statistics_level": 2, "denoising_level": 2, "inversion_guidance": 1.0, "denoising_guidance": 1.0}
BY_IMAGES = {**QUICK, "ipc": 10, "num_candidates": 1000}
BY_CLASSES = {**QUICK, "ipc": 2, "num_candidates": 1000}
SMALL = PRESETS["tiny"].model_copy(update={"autoencoder_widths": (8, 16), "layers": 1, "heads": 2, "width": 32, "latent_size": 32})


def peak_of_distillation(work: Path, settings: dict[str, Any]) -> float:
    """Distil ``work/images`` in this process and return its peak memory in MiB."""
    d3hr.distill(d3hr.load_images(work / "images"), d3hr.Prior.from_pretrained(work / "prior"), work / "set", **settings)
    return peak_mib()


def peak(classes: int, count: int, side: int, settings: Mapping[str, Any]) -> float:
    """Return the peak resident memory of a distillation in a fresh process, in MiB."""
    counts = {f"class {index}": count // classes for index in range(classes)}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_random_images(work / "images", counts, side)
        write_untrained_prior(work / "prior", PRESETS["tiny"] if side == 8 else SMALL, side, list(counts))
        mib = in_fresh_process(peak_of_distillation, work, dict(settings))
    print(f"{count:>8,} images of {classes:>5,} classes: peak {mib:,.0f} MiB", flush=True)
    return mib


def main(arguments: Sequence[str] | None = None) -> None:
    argument_parser(__doc__).parse_args(arguments)
    by_images = {count: peak(5, count, 8, BY_IMAGES) for count in IMAGES}
    ratio = max(by_images.values()) / min(by_images.values())
    print(f"largest over smallest: {ratio:.3f} (goal: at most 1.10)", flush=True)
    by_classes = {classes: peak(classes, PER_CLASS * classes, 64, BY_CLASSES) for classes in CLASSES}
    slope = (by_classes[CLASSES[2]] - by_classes[CLASSES[1]]) * 2**20 / (CLASSES[2] - CLASSES[1])
    vectors = slope / (8 * 4096)
    print(f"slope {slope / 1024:.1f} KiB per class = {vectors:.2f} float64 vectors (goal: 2)")
    record(
        "memory",
        {
            "by_images": BY_IMAGES,
            "by_classes": BY_CLASSES,
            "images_per_class": PER_CLASS,
            "dimensions": {"by_images": 64, "by_classes": 4096},
        },
        {
            "peak_mib_by_images": {str(count): round(mib, 1) for count, mib in by_images.items()},
            "ratio": round(ratio, 4),
            "peak_mib_by_classes": {str(count): round(mib, 1) for count, mib in by_classes.items()},
            "kib_a_class": round(slope / 1024, 2),
            "vectors_a_class": round(vectors, 3),
        },
    )


if __name__ == "__main__":
    main()
