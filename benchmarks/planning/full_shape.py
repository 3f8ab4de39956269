"""The exact shape of facebook/DiT-XL-2-256 (675 M parameters, random weights) through the whole of ``distill``.

Saves a pipeline of that shape through diffusers, loads it as ``d3hr`` loads any prior, and distils two classes of two random photos each
into one image per class, in a fresh process: in bfloat16 on CUDA where there is one, else in float32 on the CPU. The grid is short (8
steps, level 4, guidance 4 both ways). Prints the peak of memory, compared with the goal of 24 GiB, and the seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch

import d3hr
from benchmarks.harness import WORK, argument_parser, in_fresh_process, peak_mib, record, write_random_images
from d3hr.planning.known_shapes import SHAPES
from d3hr.prior.imagenet import imagenet_labels
from d3hr.prior.networks import SCHEDULER_CONFIG

GOAL_GIB = 24
CLASSES = ("goldfish", "school bus")
SETTINGS: dict[str, Any] = {"ipc": 1, "steps": 8, "statistics_level": 4, "denoising_level": 4, "num_candidates": 1000}


def prepare(work: Path) -> None:
    """Write four random photos and a pipeline of the full shape: its weights by diffusers, its class names as in the Hub's repository."""
    write_random_images(work / "photos", dict.fromkeys(CLASSES, 2), 256)
    denoiser, vae = replace(SHAPES["facebook/DiT-XL-2-256"], dtype=torch.bfloat16).parts("cpu")
    scheduler = diffusers.DDIMScheduler.from_config(SCHEDULER_CONFIG)
    diffusers.DiTPipeline(denoiser.network, vae, scheduler).save_pretrained(work / "prior")
    index = json.loads((work / "prior" / "model_index.json").read_text())
    index["id2label"] = {str(number): label for number, label in enumerate(imagenet_labels().values())}
    (work / "prior" / "model_index.json").write_text(json.dumps(index))


def distill(work: Path) -> dict[str, Any]:
    """Distil the photos in this process and return what it took."""
    started = time.monotonic()
    prior = d3hr.Prior.from_pretrained(work / "prior", dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    loaded = time.monotonic()
    distilled = d3hr.distill(d3hr.load_images(work / "photos"), prior, work / "set", **SETTINGS)
    finished = time.monotonic()
    cuda = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {
        "parameters": sum(value.numel() for value in prior.network.parameters()),
        "device": str(prior.device),
        "precision": prior.precision,
        "loading_seconds": round(loaded - started, 1),
        "distilling_seconds": round(finished - loaded, 1),
        "peak_gib": round(peak_mib() / 1024, 2),
        "peak_gib_on_device": cuda,
        "conditioning_ids": [entry.conditioning_id for entry in distilled.manifest.classes],
        "images": list(distilled.images.shape),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("work", nargs="?", type=Path, default=WORK / "full_shape", help="folder for photos, prior and set")
    work = parser.parse_args(arguments).work
    if not (work / "prior").exists():
        prepare(work)
    figures = in_fresh_process(distill, work)
    for name, value in figures.items():
        print(f"{name:20s} {value}")
    print(f"peak / goal of {GOAL_GIB} GiB: {figures['peak_gib'] / GOAL_GIB:.2f}")
    record("full_shape", {**SETTINGS, "classes": CLASSES, "real_images": 4}, figures)


if __name__ == "__main__":
    main()
