import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from d3hr.data.dataset import ImageData
from d3hr.data.opening import load_images
from d3hr.methods.selection import random_real

EXAMPLE = Path(__file__).parent.parent / "examples" / "train_on_distilled.py"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "|nine")
"""Names whose sorted order is not that of the digits; the last comes first in a set, as %7Cnine, and last in a folder of one's own."""


def write_images(folder: Path, images: ImageData, names: dict[str, str]) -> Path:
    """Write the first 12 images of each class into a class folder of the name it is given, all written at one moment."""
    for name, given in names.items():
        (folder / given).mkdir(parents=True)
        for index, image in enumerate(next(images.batches(name, 12))):
            file = folder / given / f"n_val_{index}.png"  # for which datasets would make a split
            Image.fromarray(((image.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)).save(file)
            os.utime(file, (1e9, 1e9))
    return folder


@pytest.mark.slow
def test_training_on_a_distilled_set(tmp_path: Path) -> None:
    """Ten real digits a class and 120 test digits: chance is 0.1. In a second folder of the same name, opened before, every digit stands in
    the next one's folder: a cache that took one folder for the other would make the accuracy that of chance or less."""
    digits, test = (load_images("digits", split=split).renamed(NAMES) for split in ("train", "test"))
    random_real(digits, tmp_path / "set", ipc=10, image_size=8)
    assert (tmp_path / "set" / "train" / "%7Cnine").is_dir()
    right = write_images(tmp_path / "first" / "test", test, {name: name for name in NAMES})
    wrong = write_images(tmp_path / "second" / "test", test, dict(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)))
    datasets.load_dataset("imagefolder", data_files={"train": f"{wrong}/*/**"}, split="train", cache_dir=str(tmp_path / "cache"))
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "set"), str(right)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    found = re.match(r"test accuracy ([\d.]+), 100 distilled images of \|nine, eight, five, four, ", done.stdout)
    assert found, done.stdout
    assert float(found[1]) > 0.5
