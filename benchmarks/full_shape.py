"""The exact shape of facebook/DiT-XL-2-256 (675 M parameters, random weights) through the whole of ``distill``.

    python benchmarks/full_shape.py [WORK_FOLDER]

Saves a pipeline of that shape through diffusers, loads it as ``d3hr`` loads any prior, and distils two classes of two random photos each
into one image a class, in a process of its own: in bfloat16 on CUDA where there is one, else in float32 on the CPU. The grid is short (8
steps, level 4, guidance 4 both ways). Prints peak memory against the
goal of 24 GiB, and the seconds.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from record import record

import d3hr
from d3hr.planning.shapes import SHAPES
from d3hr.prior.networks import SCHEDULER_CONFIG

GOAL_GIB = 24
CLASSES = ("goldfish", "school bus")
SETTINGS: dict[str, Any] = {"ipc": 1, "steps": 8, "statistics_level": 4, "denoising_level": 4, "num_candidates": 1000}


def prepare(work: Path) -> None:
    """Write four random photos and a pipeline of the full shape, its weights by diffusers, its names as the Hub's repository has them."""
    from d3hr.prior.imagenet import imagenet_labels

    rng = np.random.default_rng(0)
    for name in CLASSES:
        (work / "photos" / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(work / "photos" / name / f"{index}.png")
    transformer, vae = replace(SHAPES["facebook/DiT-XL-2-256"], dtype=torch.bfloat16).networks("cpu")
    scheduler = diffusers.DDIMScheduler.from_config(SCHEDULER_CONFIG)
    diffusers.DiTPipeline(transformer, vae, scheduler).save_pretrained(work / "prior")
    index = json.loads((work / "prior" / "model_index.json").read_text())
    index["id2label"] = {str(number): label for number, label in enumerate(imagenet_labels().values())}
    (work / "prior" / "model_index.json").write_text(json.dumps(index))


def run(work: Path) -> None:
    started = time.monotonic()
    prior = d3hr.Prior.from_pretrained(work / "prior", dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    loaded = time.monotonic()
    distilled = d3hr.distill(d3hr.load_images(work / "photos"), prior, work / "set", **SETTINGS)
    finished = time.monotonic()
    cuda = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    figures = {
        "parameters": sum(value.numel() for value in prior.transformer.parameters()),
        "device": str(prior.device),
        "precision": prior.precision,
        "loading_seconds": round(loaded - started, 1),
        "distilling_seconds": round(finished - loaded, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "peak_gib_on_device": cuda,
        "conditioning_ids": [entry.conditioning_id for entry in distilled.manifest.classes],
        "images": list(distilled.images.shape),
    }
    print(json.dumps(figures))


def main() -> None:
    work = Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/work/full_shape")
    if not (work / "prior").exists():
        prepare(work)
    command = [sys.executable, __file__, "--run", str(work)]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])
    for name, value in figures.items():
        print(f"{name:20s} {value}")
    print(f"peak / goal of {GOAL_GIB} GiB: {figures['peak_gib'] / GOAL_GIB:.2f}")
    record("full_shape", {**SETTINGS, "classes": CLASSES, "real_images": 4}, figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]))
    else:
        main()
