"""The real data sets of the benchmarks, with a part of the training images held out on which everything is chosen.

The folder of a data set is written once, in benchmarks/work/data, as parquet files of three splits: ``train``, ``validation`` (200 images
per class of the training set, 50 of tiny_imagenet10) and ``test``, which is used for final numbers only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import datasets

from benchmarks.harness import WORK
from d3hr import ImageData, load_images

SOURCES = Path(os.environ.get("D3HR_BENCHMARK_DATA", WORK / "sources"))
"""Holds a folder per data set, ``fashion_mnist``, ``cifar10`` and ``tiny_imagenet10``, that ``datasets.load_dataset`` opens."""
IMAGE_SIZE = 32
HELD_OUT = {"fashion_mnist": 2000, "cifar10": 2000, "tiny_imagenet10": 500}
"""Images held out, the same number of each class."""
NAMES = tuple(HELD_OUT)


def real_data(name: str) -> Path:
    """Return the folder of ``fashion_mnist``, ``cifar10`` or ``tiny_imagenet10`` with its three splits."""
    folder = WORK / "data" / name
    if not folder.is_dir():
        source = datasets.load_dataset(str(SOURCES / name))
        parts = source["train"].train_test_split(test_size=HELD_OUT[name], stratify_by_column="label", seed=0)
        # The validation images of tiny_imagenet10 are the only ones that are not for training.
        splits = {"train": parts["train"], "validation": parts["test"], "test": source["test" if "test" in source else "validation"]}
        write_splits(folder, splits)
    return folder


def images_of(data: Path, *splits: str) -> tuple[ImageData, ...]:
    """Return splits of a data set as all benchmarks see them, 32 pixels wide."""
    return tuple(load_images(str(data), split=split, image_size=IMAGE_SIZE) for split in splits)


def write_splits(folder: Path, splits: Mapping[str, datasets.Dataset]) -> None:
    """Write a folder of parquet files, one per split, whole or not at all."""
    partial = folder.with_suffix(".partial")
    for split, table in splits.items():
        table.to_parquet(partial / "data" / f"{split}-00000-of-00001.parquet")
    partial.rename(folder)
