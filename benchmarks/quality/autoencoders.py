"""What a good pretrained autoencoder is worth: reconstruction, drawn sets and real starts, next to one that is fitted in minutes.

The photos of ten classes of Tiny ImageNet, at 64 pixels. The pretrained autoencoder is TAEF2 (``benchmarks.taef2``), which stands
for those that diffusers loads; behind each, a transformer of the same shape is trained for the same steps. Everything is measured on
held-out training images. Priors, sets and trainings are kept in benchmarks/work/autoencoders, so a stopped run continues; after each part
the result is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import DOCS, HERE, WORK, argument_parser, kept_rows, record
from benchmarks.quality.real_choice import PROTOCOLS
from benchmarks.quality.real_matrix import matrix_file
from benchmarks.real_data import real_data
from benchmarks.taef2 import save_taef2
from d3hr import ImageData, Prior, fit_prior, load_images
from d3hr.comparison.matrix import MatrixRow, read_matrix
from d3hr.comparison.run import compare
from d3hr.data.showing import contact_sheet
from d3hr.fileio.atomic import load_or_make, read_json, write_bytes
from d3hr.methods.job import MethodInputs
from d3hr.prior.autoencoder import downsampling, psnr_db, to_images, to_latents
from d3hr.prior.families.dit import DiT
from d3hr.prior.networks import SCHEDULER_CONFIGS, new_transformer
from d3hr.prior.presets import PRESETS
from d3hr.prior.repository import Repository, load_autoencoder
from d3hr.progress import OnTerminal
from d3hr.sets.distilled_set import DistilledSet

DATA, SIDE, PRESET = "tiny_imagenet10", 64, "compact"
WEIGHTS = os.environ.get("D3HR_TAEF2", "")
AUTOENCODER_STEPS, STEPS = 800, 400
"""Optimiser steps of 32 and of 128 images: some seven minutes of one core for the autoencoder, and two for either transformer."""
STUDENT_SIDE = 32
"""Pixels that students see: at 64 the trainings would take four times as long."""
PHOTOS = 100
"""Held-out photos whose reconstruction is measured."""
SPARED = 0.6
"""Share of the training images that transformers and sets do without, to save the time of encoding them."""
SMALL_SIDES = (16, 32, 48)
"""Sides, below that of the photos, at which the pretrained autoencoder is tried."""
PARTS = ("reconstruction", "students", "priors")
REAL = (MatrixRow(method="random_real"), MatrixRow(method="chosen"))
"""Real photos, and those that are chosen, as all real starts are."""
THROUGH = MatrixRow(name="chosen", method="real_start", settings={"denoising_level": 1})
"""Chosen photos that were encoded and decoded: behind a transformer that predicts no noise at all, a level changes nothing."""
FOLDER = WORK / "autoencoders"
"""Finished work."""


def fitted(images: ImageData, autoencoder: Path, name: str) -> Prior:
    """Fit, or load, the prior behind an autoencoder."""
    return fit_prior(images, FOLDER / name, preset=PRESET, autoencoder=autoencoder, steps=STEPS, image_size=SIDE, progress=OnTerminal())


def fitted_autoencoder(images: ImageData) -> Path:
    """Fit, or find, the autoencoder of the images: a prior whose transformer is a single step."""
    folder = FOLDER / "autoencoder"
    fit_prior(images, folder, preset=PRESET, autoencoder_steps=AUTOENCODER_STEPS, steps=1, image_size=SIDE, progress=OnTerminal())
    return folder


def reconstruction(vae: Any, images: Tensor, enlarge: int = 1) -> float:
    """Return the PSNR, in dB, of images [N, 3, H, W] that went through an autoencoder, enlarged before and averaged down after."""

    def through(part: Tensor) -> Tensor:
        side = part.shape[-1] * enlarge
        large = F.interpolate(part, size=(side, side), mode="bicubic").clamp(-1, 1) if enlarge > 1 else part
        return F.avg_pool2d(to_images(vae, to_latents(vae, large)), enlarge)

    with torch.no_grad():
        return round(psnr_db(images, torch.cat([through(part) for part in images.split(50)])), 2)


def untrained(images: ImageData, autoencoder: Path, name: str) -> Prior:
    """Write, or load, a prior with an autoencoder whose transformer is untrained, so that it predicts zero."""
    folder = FOLDER / f"{name}-untrained"
    if not folder.is_dir():
        vae = load_autoencoder(Repository(str(autoencoder)), torch.float32)
        transformer = new_transformer(PRESETS[PRESET], (vae.config.latent_channels, SIDE // downsampling(vae)), len(images.class_names))
        Prior(DiT(transformer, images.class_names), vae, SCHEDULER_CONFIGS["epsilon"]).save_pretrained(folder)
    return Prior.from_pretrained(folder)


def reconstructions(folders: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Return what comes back of the held-out photos, by autoencoder and side; what an earlier run has measured is read."""
    vaes = {name: load_autoencoder(Repository(str(folder)), torch.float32) for name, folder in folders.items()}
    kept = FOLDER / "reconstruction"
    kept.mkdir(exist_ok=True)

    def found(name: str, side: int, enlarge: int = 1) -> float:
        def measured() -> dict[str, float]:
            return {"psnr_db": reconstruction(vaes[name], _photos(side), enlarge)}

        return float(load_or_make(kept / f"{name}-{side}-{enlarge}.json", measured)["psnr_db"])

    return {
        "at_64_px": {name: found(name, SIDE) for name in vaes},
        "enlarged_to_128_px": {name: found(name, SIDE, 2) for name in vaes},
        "pretrained_by_side": {str(side): found("pretrained", side) for side in SMALL_SIDES},
        "pretrained_by_side_enlarged": {str(side): found("pretrained", side, 2) for side in SMALL_SIDES},
    }


def _photos(side: int) -> Tensor:
    images = load_images(str(real_data(DATA)), split="validation", image_size=side)
    return images.gather(range(0, len(images), len(images) // PHOTOS))[0][:PHOTOS]


def about_fit(name: str) -> dict[str, Any]:
    """Return the last loss of a fit, and the PSNR on training images."""
    losses = [float(line.split(",")[2]) for line in (FOLDER / name / "loss.csv").read_text().splitlines() if line.startswith("transformer")]
    about = read_json(FOLDER / name / "fit.json")
    return {"noise_loss": round(sum(losses[-10:]) / 10, 4), "training_psnr_db": about["reconstruction_psnr_db"]}


def pictures(images: ImageData, folders: Mapping[str, Path], priors: Mapping[str, Prior]) -> None:
    """Write docs/images/autoencoders.png: a held-out photo of each class, what either autoencoder makes of it, and sets behind either."""
    real = torch.cat([images.pick(name, [1]) for name in images.class_names])
    rows = {"photo": real}
    for name, folder in folders.items():
        vae = load_autoencoder(Repository(str(folder)), torch.float32)
        with torch.no_grad():
            rows[name] = to_images(vae, to_latents(vae, real))
    for row in ("mixture", "real start, level 2", "real start, level 10") if priors else ():
        for name in priors:
            made = DistilledSet.load(FOLDER / f"{name}-validation" / "sets" / f"{row}-ipc10-seed0")
            shown = torch.stack([made.of_class(label)[0] for label in made.class_names])
            rows[f"{name}: {row}"] = shown.float() / 127.5 - 1
    write_bytes(DOCS / "images" / "autoencoders.png", contact_sheet({name: _bytes(each) for name, each in rows.items()}))


def _bytes(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="taef2.safetensors; by default D3HR_TAEF2 of the environment")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds of the sets; by default the matrix's")
    parser.add_argument("--until", choices=PARTS, default=PARTS[-1], help="the last part to measure")
    options = parser.parse_args(arguments)
    FOLDER.mkdir(parents=True, exist_ok=True)
    images, validation = (load_images(str(real_data(DATA)), split=split, image_size=SIDE) for split in ("train", "validation"))
    folders = {"fitted": fitted_autoencoder(images), "pretrained": save_taef2(options.weights, FOLDER / "taef2")}
    images = load_images(str(real_data(DATA)), split="train", image_size=SIDE, hold_out=SPARED)
    protocol = HERE / "protocols" / f"{PROTOCOLS[DATA]}.yaml"
    matrix = read_matrix(matrix_file("autoencoders"), {"protocols": [str(protocol)], "distillation_seeds": options.seeds})
    figures: dict[str, Any] = {}

    def keep(part: str, content: Any) -> None:
        figures[part] = content
        sizes = {"preset": PRESET, "image_size": SIDE, "autoencoder_steps": AUTOENCODER_STEPS, "steps": STEPS}
        of_students = {"protocol": protocol.name, "student_side": STUDENT_SIDE, "seeds": matrix.distillation_seeds}
        record(f"{DATA}-autoencoders-validation", sizes | of_students, figures)

    def rows(name: str, prior: Prior | None, methods: Sequence[MatrixRow]) -> list[dict[str, Any]]:
        part, inputs = matrix.model_copy(update={"methods": tuple(methods)}), MethodInputs(images, SIDE, prior=prior)
        made = compare(part, inputs, validation, FOLDER / f"{name}-validation", image_size=STUDENT_SIDE, progress=OnTerminal())
        return [{**row, "name": f"{name}: {row['name']}"} for row in kept_rows(made.rows, "class_names")]

    keep("reconstruction_psnr_db", reconstructions(folders))
    pictures(validation, folders, {})
    if options.until == "reconstruction":
        return
    found = rows("photos", None, REAL)
    for name, folder in folders.items():
        found += rows(f"photos through the {name} one", untrained(images, folder, name), [THROUGH])
        keep("rows", found)
    if options.until == "students":
        return
    priors = {name: fitted(images, folder, name) for name, folder in folders.items()}
    keep("fits", {name: about_fit(name) for name in priors})
    for name, prior in priors.items():
        found += rows(name, prior, matrix.methods)
        keep("rows", found)
    pictures(validation, folders, priors)


if __name__ == "__main__":
    main()
