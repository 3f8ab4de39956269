"""Fits the priors of the real-data benchmarks: one autoencoder per data set, and transformers of several lengths behind it.

Priors are kept in benchmarks/work/priors, and a stopped fit continues. Which length pays, ``benchmarks.quality.real_fitting`` measures on
held-out images.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import WORK, argument_parser, record
from benchmarks.real_data import IMAGE_SIZE, NAMES, images_of, real_data
from d3hr import Prior, fit_prior
from d3hr.fileio.atomic import read_json
from d3hr.progress import OnTerminal

PRESET = "compact"
AUTOENCODER_STEPS = {"fashion_mnist": 6000, "cifar10": 8000, "tiny_imagenet10": 4000}
LENGTHS = {"fashion_mnist": (500, 1000, 2000, 4000), "cifar10": (6000,), "tiny_imagenet10": (4000,)}
"""Optimiser steps of the transformers, of 128 images each."""


def add_prior_arguments(parser: ArgumentParser) -> None:
    """Add the name of a data set, and the option that chooses its prior."""
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("--prior", type=int, required=True, metavar="STEPS", help="the prior of this many optimiser steps")


def prior_folder(name: str, steps: int) -> Path:
    """Return the folder of the prior of this many optimiser steps."""
    return WORK / "priors" / f"{name}-{steps}"


def minutes_of(name: str, steps: int) -> float:
    """Return for how many minutes the transformer of a prior was fitted."""
    seconds: float = read_json(prior_folder(name, steps) / "fit.json")["seconds"]["transformer"]
    return round(seconds / 60, 1)


def fit_one(name: str, steps: int) -> Prior:
    """Fit, or load, the prior of this many steps, behind the autoencoder of the data set."""
    (images,) = images_of(real_data(name), "train")
    autoencoder, progress = WORK / "priors" / f"{name}-autoencoder", OnTerminal()
    autoencoder.parent.mkdir(parents=True, exist_ok=True)
    # A fit is an autoencoder and a transformer: the first one's transformer is a single step.
    fit_prior(
        images, autoencoder, preset=PRESET, autoencoder_steps=AUTOENCODER_STEPS[name], steps=1, image_size=IMAGE_SIZE, progress=progress
    )
    return fit_prior(
        images,
        prior_folder(name, steps),
        preset=PRESET,
        autoencoder=autoencoder,
        steps=steps,
        image_size=IMAGE_SIZE,
        latent_cache=WORK / "priors" / f"{name}-latents",
        progress=progress,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("steps", type=int, nargs="*", help="optimiser steps; by default those of the data set")
    options = parser.parse_args(arguments)
    name = options.data
    for steps in options.steps or LENGTHS[name]:
        fit_one(name, steps)
    fitted = {path.name.rsplit("-", 1)[1]: path for path in sorted((WORK / "priors").glob(f"{name}-[0-9]*")) if path.suffix != ".partial"}
    autoencoder = read_json(WORK / "priors" / f"{name}-autoencoder" / "fit.json")
    record(
        f"real_priors_{name}",
        {"preset": PRESET, "image_size": IMAGE_SIZE, "autoencoder_steps": AUTOENCODER_STEPS[name]},
        {
            "autoencoder": {
                "minutes": round(autoencoder["seconds"]["autoencoder"] / 60, 1),
                "psnr_db": autoencoder["reconstruction_psnr_db"],
            },
            "transformers": {
                steps: {
                    "minutes": minutes_of(name, int(steps)),
                    "loss": _last_loss(path),
                }
                for steps, path in sorted(fitted.items(), key=lambda item: int(item[0]))
            },
        },
    )


def _last_loss(folder: Path) -> float:
    """Return the mean loss of the last tenth of the curve."""
    losses = [float(line.split(",")[2]) for line in (folder / "loss.csv").read_text().splitlines() if line.startswith("transformer")]
    last = losses[-max(1, len(losses) // 10) :]
    return round(sum(last) / len(last), 5)


if __name__ == "__main__":
    main()
