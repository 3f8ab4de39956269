"""What every benchmark needs: a command line, a kept result, a fresh process, peak memory, images and priors to measure on.

A benchmark is a module with a ``main(arguments)``; it is run from the root of the repository: ``python -m benchmarks.speed.memory --help``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image, ImageChops

import d3hr
from d3hr.comparison.tables import Comparison
from d3hr.evaluation.results import Evaluation
from d3hr.fileio.atomic import write_json
from d3hr.prior.autoencoder import downsampling
from d3hr.prior.families.dit import DiT
from d3hr.prior.networks import SCHEDULER_CONFIG, new_autoencoder, new_transformer
from d3hr.prior.presets import PriorPreset

HERE = Path(__file__).parent
RESULTS, WORK, DOCS = HERE / "results", HERE / "work", HERE.parent / "docs"
"""Kept results; finished work that a stopped benchmark continues from (not in git); the documentation."""

P = ParamSpec("P")
T = TypeVar("T")


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return an empty parser whose help begins with a module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m {_module()}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _module() -> str:
    """Return the name of the module that was started with ``python -m``."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).stem


def _without_place(argument: str) -> str:
    """Return an argument of the command line; an absolute path is of this machine only, and only its name is kept."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _git(*command: str) -> str:
    return subprocess.run(["git", *command], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def _commit() -> str:
    try:
        changed = _git("diff", "--name-only", "HEAD", "--", ":/", ":!/benchmarks/results")
        return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


COMMIT = _commit()
"""What the benchmark runs from, dirty if other files than results were changed; read at the start, as the checkout may move on."""


def record(name: str, settings: dict[str, Any], figures: Any) -> Path:
    """Write ``results/<name>.json`` with command, commit, settings, machine and date, and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(
        path,
        {
            "command": shlex.join(["python", "-m", _module(), *map(_without_place, sys.argv[1:])]),
            "commit": COMMIT,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "versions": {package: version(package) for package in ("d3hr", "torch", "diffusers")},
            "settings": settings,
            "figures": figures,
        },
    )
    return path


def kept_rows(rows: Sequence[Evaluation], *exclude: str) -> list[dict[str, Any]]:
    """Return accuracy rows as JSON values, without their confusion matrices and the fields in ``exclude``."""
    return [row.model_dump(mode="json", exclude={"confusion", *exclude}) for row in Comparison(rows).ranked()]


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``function`` returns in a new Python process, whose peak memory is then its own.

    Function, arguments and result travel as pickles, so the function must be at the top level of a module.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def resident_mib() -> float:
    """Return the memory that this process holds, in MiB (Linux only)."""
    return _status("VmRSS")


def peak_mib() -> float:
    """Return the most memory that this process has held, in MiB (Linux only).

    ``getrusage`` is not used: its figure includes what the parent held when it started this process.
    """
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def write_random_images(root: Path, counts: Mapping[str, int], side: int) -> None:
    """Write a folder of class folders of random square PNG images.

    Args:
        root: the folder to make.
        counts: class name -> number of images.
        side: width and height in pixels.
    """
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / name / f"{index}.png", compress_level=1)


def write_photos(root: Path, counts: Mapping[str, int], size: tuple[int, int] = (500, 375)) -> None:
    """Write a folder of class folders of JPEG files as a camera's, reduced, would be: shapes of all sizes, some 60 kB each.

    Args:
        root: the folder to make.
        counts: class name -> number of photos.
        size: width and height in pixels.
    """
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(8):
        pixels = np.zeros((size[1], size[0], 3))
        for cells in (4, 16, 64, 256):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            pixels += np.asarray(noise.resize(size, Image.Resampling.BICUBIC)) * 2 / cells**0.5
        scenes.append(Image.fromarray((pixels * 255 / pixels.max()).astype(np.uint8)))
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            here, there = (ImageChops.offset(scenes[rng.integers(8)], int(rng.integers(size[0]))) for _ in range(2))
            Image.blend(here, there, float(rng.uniform(0.0, 0.5))).save(root / name / f"{index:05d}.jpg", quality=90)


def write_digits(root: Path, *, split: str = "train", classes: Iterable[str] | None = None, per_class: int | None = None) -> d3hr.ImageData:
    """Write the first images of some classes of the digits (by default all) as a folder of class folders, and open it."""
    digits = d3hr.load_images("digits", split=split)
    for name in digits.class_names if classes is None else classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        count = digits.counts[name] if per_class is None else min(per_class, digits.counts[name])
        for index, pixels in enumerate(digits.pixels(name, range(count))):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(root / name / f"{index:04d}.png")
    return d3hr.load_images(root)


def write_untrained_prior(path: Path, preset: PriorPreset, image_size: int, class_names: Sequence[str]) -> None:
    """Save a prior of a preset's shape with random weights, the same at every call."""
    torch.manual_seed(0)
    vae = new_autoencoder(preset, image_size)
    transformer = new_transformer(preset, (vae.config.latent_channels, image_size // downsampling(vae)), len(class_names))
    d3hr.Prior(DiT(transformer, class_names), vae, SCHEDULER_CONFIG).save_pretrained(path)
