"""Peak memory of ``distill`` against the number of images: flat means that nothing holds the data set.

    python benchmarks/memory.py

Two folders of 8-pixel PNG files, five classes each, go through the whole of distill with an untrained prior of the ``tiny`` preset, each in
a process of its own. Prints the peak resident memory of both and their ratio.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import record

import d3hr
from d3hr.prior.networks import SCHEDULER_CONFIG, new_autoencoder, new_transformer
from d3hr.prior.presets import PRESETS

CLASSES = [f"class {index}" for index in range(5)]
SIZES = (5_000, 50_000)
SETTINGS = {"ipc": 10, "steps": 10, "statistics_level": 2, "denoising_level": 2, "inversion_guidance": 1.0, "num_candidates": 1000}


def make_images(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for index in range(count // len(CLASSES)):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name / f"{index}.png", compress_level=1)


def make_prior(path: Path) -> None:
    torch.manual_seed(0)
    vae, transformer = new_autoencoder(PRESETS["tiny"], 8), new_transformer(PRESETS["tiny"], (4, 4), len(CLASSES))
    d3hr.Prior(transformer, vae, SCHEDULER_CONFIG, CLASSES).save_pretrained(path)


def distill(images: str, prior: str, out: str) -> None:
    d3hr.distill(d3hr.load_images(images), d3hr.Prior.from_pretrained(prior), out, **SETTINGS)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_prior(work / "prior")
        for count in SIZES:
            make_images(work / f"images{count}", count)
            command = [sys.executable, __file__, str(work / f"images{count}"), str(work / "prior"), str(work / f"set{count}")]
            peaks[count] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            print(f"{count:>7,} images: peak {peaks[count]:,.0f} MiB", flush=True)
    ratio = peaks[SIZES[1]] / peaks[SIZES[0]]
    print(f"ratio {ratio:.3f} (goal: at most 1.10)")
    record("memory", SETTINGS, {"peak_mib": {str(count): round(peak, 1) for count, peak in peaks.items()}, "ratio": round(ratio, 4)})


if __name__ == "__main__":
    if len(sys.argv) == 4:
        distill(*sys.argv[1:])
    else:
        main()
