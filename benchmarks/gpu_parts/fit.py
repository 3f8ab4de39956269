"""Fits a prior for the time that is left, and writes its weights in bfloat16, in files that a repository can hold, with a card."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu_parts.images import images_of
from benchmarks.gpu_parts.worker import Figures, Job, Measurements
from d3hr import ImageData, Prior, fit_prior
from d3hr.prior.settings import OBJECTIVE, OWN

LARGEST_FILE = "15MB"
"""Of weights, as diffusers counts it: 10^6 bytes."""
WRITING_SECONDS = 25.0
"""What reading the images, encoding them and writing the weights take next to the training, about."""


def measurements(job: Job) -> Measurements:
    """Yield the fit."""
    yield "prior", partial(_fit, job)


def prior_folder(job: Job) -> Path:
    """Return where the weights are."""
    return job.plan.out / "prior"


def _fit(job: Job) -> Figures:
    images = images_of(job, "train")
    out, work = prior_folder(job), job.plan.out / "fit"
    for folder in (out, work):
        shutil.rmtree(folder, ignore_errors=True)
    seconds = job.scale.fit_seconds or max(0.9 * (job.left - WRITING_SECONDS), 1.0)
    fit_prior(images, work, preset=job.scale.preset, autoencoder=OWN, max_minutes=seconds / 60)
    about = json.loads((work / "fit.json").read_text(encoding="utf-8"))
    losses = (work / "loss.csv").read_text(encoding="utf-8").splitlines()
    figures = {
        "minutes": seconds / 60,
        "objective": OBJECTIVE,
        "precision": json.loads((work / "run.json").read_text(encoding="utf-8"))["settings"]["precision"],
        "images": len(images),
        "steps": about["steps"],
        "seconds": about["seconds"],
        "reconstruction_psnr_db": about["reconstruction_psnr_db"],
        "loss": float(losses[-1].rpartition(",")[2]),
        "device": json.loads((job.plan.out / "machine.json").read_text(encoding="utf-8"))["device"],
    }
    write_small_files(work, out)
    (out / "README.md").write_text(_card(job, images, figures), encoding="utf-8")
    shutil.rmtree(work)
    return figures


def write_small_files(fitted: Path, out: Path, largest: str = LARGEST_FILE) -> None:
    """Write a fitted prior in bfloat16, its network in files of a largest size."""
    prior = Prior.from_pretrained(fitted, device="cpu", dtype=torch.bfloat16)
    prior.save_pretrained(out)
    for file in (out / "transformer").glob("*.safetensors"):
        file.unlink()
    prior.network.save_pretrained(out / "transformer", max_shard_size=largest)
    shutil.copy(fitted / "fit.json", out / "fit.json")


def _card(job: Job, images: ImageData, figures: Figures) -> str:
    """Return the card of a prior: what it is, from what, and what it reached."""
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value} |" for name, value in figures.items())
    classes = ", ".join(images.class_names)
    return (
        "---\nlicense: apache-2.0\nlibrary_name: diffusers\n---\n\n"
        f"# A prior of {Path(images.source).name}\n\n"
        f"A class-conditional diffusion transformer of d3hr's preset `{job.scale.preset}` with an autoencoder of its own, trained from\n"
        f"random weights on {len(images)} training images of {images.image_size} pixels, and on nothing else. Classes: {classes}.\n\n"
        f"| | |\n|---|---|\n{rows}\n\n"
        "Weights are bfloat16. The images have terms of their own; the licence above is that of the weights.\n"
    )
