"""Distils spoiled data and tests on clean images: what breaks, and which diagnostic says so beforehand.

The training images are spoiled: wrong labels, blur, noise, classes of unequal size. The prior is that of the clean ones, so what changes
is what is distilled. Sets are tested on the clean held-out images, so that any of it may be used to choose. Every set and training is kept
in benchmarks/work/spoiled, so a stopped run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
from PIL import Image, ImageFilter

from benchmarks.harness import WORK, argument_parser, kept_rows, record
from benchmarks.quality.real_diagnosis import figures
from benchmarks.quality.real_matrix import COMMON, matrix_file, protocol_of
from benchmarks.quality.real_priors import add_prior_arguments, prior_folder
from benchmarks.real_data import IMAGE_SIZE, images_of, real_data, write_splits
from d3hr import DistilledSet, Prior
from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.methods.job import MethodInputs
from d3hr.progress import OnTerminal

Spoil = Callable[[datasets.Dataset], datasets.Dataset]


def wrong_labels(share: float) -> Spoil:
    """Give a share of the images one of the other labels, each as likely."""

    def spoil(train: datasets.Dataset) -> datasets.Dataset:
        draws, labels = np.random.default_rng(0), np.array(train["label"])
        chosen = draws.permutation(len(labels))[: round(share * len(labels))]
        count = train.features["label"].num_classes
        labels[chosen] = (labels[chosen] + draws.integers(1, count, len(chosen))) % count
        return train.remove_columns("label").add_column("label", labels, feature=train.features["label"])

    return spoil


def changed_pixels(change: Callable[[Image.Image, np.random.Generator], Image.Image]) -> Spoil:
    """Change every image."""

    def spoil(train: datasets.Dataset) -> datasets.Dataset:
        return train.map(lambda row, index: {"image": change(row["image"], np.random.default_rng(index))}, with_indices=True)

    return spoil


def blurred(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Blur with a Gaussian of two pixels."""
    return image.filter(ImageFilter.GaussianBlur(2))


def noisy(image: Image.Image, draws: np.random.Generator) -> Image.Image:
    """Add Gaussian noise of a quarter of the range."""
    pixels = np.asarray(image) + draws.normal(0, 64, np.asarray(image).shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def long_tail(train: datasets.Dataset) -> datasets.Dataset:
    """Keep all images of the first class and a hundredth of the last one's, in geometric steps between them."""
    labels = np.array(train["label"])
    count = train.features["label"].num_classes
    kept = []
    for label in range(count):
        rows = np.flatnonzero(labels == label)
        kept.append(rows[: max(2, round(len(rows) * 100 ** (-label / (count - 1))))])
    return train.select(np.concatenate(kept))


SPOILED: dict[str, Spoil] = {
    "as it is": lambda train: train,
    "10 % wrong labels": wrong_labels(0.1),
    "20 % wrong labels": wrong_labels(0.2),
    "40 % wrong labels": wrong_labels(0.4),
    "blurred": changed_pixels(blurred),
    "noisy": changed_pixels(noisy),
    "long tail": long_tail,
}


def spoiled_data(name: str, how: str) -> Path:
    """Return the folder of a data set whose training images are spoiled."""
    folder = WORK / "data" / f"{name}, {how}"
    if not folder.is_dir():
        train = datasets.load_dataset(str(real_data(name)), split="train")
        write_splits(folder, {"train": SPOILED[how](train)})
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    add_prior_arguments(parser)
    options = parser.parse_args(arguments)
    name, steps = options.data, options.prior
    progress = OnTerminal()
    (validation,) = images_of(real_data(name), "validation")
    prior = Prior.from_pretrained(prior_folder(name, steps))
    protocol = protocol_of(name)
    matrix = read_matrix(matrix_file("spoiled"), {"protocols": [str(protocol)]})
    results = {}
    for how in SPOILED:
        (images,) = images_of(spoiled_data(name, how), "train")
        folder = WORK / "spoiled" / f"{name}-{steps}, {how}"
        comparison = compare(matrix, MethodInputs(images, IMAGE_SIZE, prior=prior), validation, folder, settings=COMMON, progress=progress)
        seed = matrix.distillation_seeds[0]
        results[how] = {
            "counts": images.counts,
            "rows": kept_rows(comparison.rows, "class_names"),
            "diagnoses": {
                row.label: figures(DistilledSet.load(folder / "sets" / f"{row.label}-ipc{matrix.ipc[0]}-seed{seed}"), images, prior)
                for row in matrix.methods
                if row.method == "d3hr"
            },
        }
        record(f"{name}-spoiled-validation", {"protocol": protocol.name, "common": COMMON, "prior_steps": steps}, results)


if __name__ == "__main__":
    main()
