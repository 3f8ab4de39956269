"""Statistics are measured, kept, read and drawn from one class at a time: memory does not grow with the number of classes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d3hr import Prior, distill, expand, load_images
from tests.conftest import untrained_prior

SIDE, RANK = 16, 255
FEW, MANY = 10, 80
CLASS_BYTES = 4 * (2 + RANK) * 4 * (SIDE // 2) ** 2
"""Of the statistics of a class, in float32: mean, spread and loadings of latents of 4 channels."""
ROOT = Path(__file__).parents[2]


def anonymous_bytes() -> int:
    """Return the bytes of this process that are no part of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@contextmanager
def peak() -> Iterator[list[int]]:
    """Sample, in a thread, the most bytes held; the list has them in the end."""
    found, ended = [anonymous_bytes()], threading.Event()

    def sample() -> None:
        while not ended.wait(0.001):
            found[0] = max(found[0], anonymous_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    yield found
    ended.set()
    thread.join()


def measure(folder: Path, classes: int) -> dict[str, int]:
    """Distil and expand that many classes of two images each, and return the peak of either."""
    generator = np.random.default_rng(0)
    names = tuple(f"class {index}" for index in range(classes))
    pixels = generator.integers(0, 256, (2 * classes, SIDE, SIDE, 3), dtype=np.uint8)
    images = load_images((pixels, [names[index // 2] for index in range(2 * classes)]))
    untrained_prior(names, SIDE).save_pretrained(folder / "prior")
    prior = Prior.from_pretrained(folder / "prior")
    few: Any = {"steps": 2, "level": 1, "batch_size": 2, "strategy": "random", "rank": RANK, "inversion_guidance": 1.0}
    found = {}
    with peak() as bytes_of:
        statistics = distill(images, prior, folder / "statistics", store="statistics", **few)
    found["distill"] = bytes_of[0]
    with peak() as bytes_of:
        expand(statistics, prior, folder / "set", ipc=1, denoising_guidance=1.0)
    found["expand"] = bytes_of[0]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which says what memory is no part of a file")
def test_memory_does_not_grow_with_the_number_of_classes(tmp_path: Path) -> None:
    """Seventy classes more have statistics of 18 MB in float32, 37 MB in float64; a fresh process holds a fraction of either."""
    peaks = {}
    for classes in (FEW, MANY):
        (tmp_path / str(classes)).mkdir()
        command = [sys.executable, "-m", "tests.sets.test_memory", str(tmp_path / str(classes)), str(classes)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "100000"}
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
        peaks[classes] = json.loads(run.stdout.splitlines()[-1])
    more = {step: peaks[MANY][step] - peaks[FEW][step] for step in peaks[FEW]}
    assert all(grown < 0.25 * (MANY - FEW) * CLASS_BYTES for grown in more.values()), more


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
