"""Peak memory of ``distill`` against the number of images (flat: nothing holds the data set) and of classes (two vectors a class).

    python benchmarks/memory.py

Folders of small PNG files go through the whole of distill with an untrained prior, each in a process of its own that reports its peak
resident memory. Images: five classes of 8 pixels, 64 dimensions. Classes: 4 images of 64 pixels each, 4,096 dimensions as in
DiT-XL/2 at 256 pixels, where mean and standard deviation in float64 are 64 KiB a class.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import record

import d3hr
from d3hr.prior.networks import SCHEDULER_CONFIG, new_autoencoder, new_transformer
from d3hr.prior.presets import PRESETS

IMAGES = (1_000, 10_000, 100_000)
CLASSES = (10, 100, 1_000)
PER_CLASS = 4
QUICK = {"steps": 10, "statistics_level": 2, "denoising_level": 2, "inversion_guidance": 1.0, "denoising_guidance": 1.0}
BY_IMAGES = {**QUICK, "ipc": 10, "num_candidates": 1000}
BY_CLASSES = {**QUICK, "ipc": 2, "num_candidates": 1000}
SMALL = PRESETS["tiny"].model_copy(update={"autoencoder_widths": (8, 16), "layers": 1, "heads": 2, "width": 32, "latent_size": 32})


def make_images(root: Path, classes: int, count: int, side: int) -> list[str]:
    rng = np.random.default_rng(0)
    names = [f"class {index}" for index in range(classes)]
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(count // classes):
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / name / f"{index}.png", compress_level=1)
    return names


def make_prior(path: Path, names: list[str], side: int) -> None:
    torch.manual_seed(0)
    preset, latents = (PRESETS["tiny"], (4, 4)) if side == 8 else (SMALL, (4, 32))
    transformer, vae = new_transformer(preset, latents, len(names)), new_autoencoder(preset, side)
    d3hr.Prior(transformer, vae, SCHEDULER_CONFIG, names).save_pretrained(path)


def distill(images: str, prior: str, out: str, settings: str) -> None:
    d3hr.distill(d3hr.load_images(images), d3hr.Prior.from_pretrained(prior), out, **json.loads(settings))
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """Return the peak resident memory of this program, in MiB; ``ru_maxrss`` would include what its parent held when it was started."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def peak(classes: int, count: int, side: int, settings: Mapping[str, Any]) -> float:
    """Return the peak resident memory of a distillation, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_prior(work / "prior", make_images(work / "images", classes, count, side), side)
        command = [sys.executable, __file__, *(str(work / name) for name in ("images", "prior", "set")), json.dumps(settings)]
        mib = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    print(f"{count:>8,} images of {classes:>5,} classes: peak {mib:,.0f} MiB", flush=True)
    return mib


def main() -> None:
    by_images = {count: peak(5, count, 8, BY_IMAGES) for count in IMAGES}
    ratio = max(by_images.values()) / min(by_images.values())
    print(f"largest over smallest: {ratio:.3f} (goal: at most 1.10)", flush=True)
    by_classes = {classes: peak(classes, PER_CLASS * classes, 64, BY_CLASSES) for classes in CLASSES}
    slope = (by_classes[CLASSES[2]] - by_classes[CLASSES[1]]) * 2**20 / (CLASSES[2] - CLASSES[1])
    vectors = slope / (8 * 4096)
    print(f"slope {slope / 1024:.1f} KiB a class = {vectors:.2f} float64 vectors (goal: 2)")
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
    if len(sys.argv) == 5:
        distill(*sys.argv[1:])
    else:
        main()
