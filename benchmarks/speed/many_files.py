"""ImageNet's number of files: what looking at them, planning, distilling and evaluating cost in time and memory.

Small JPEG files, each different, are made out of a few thousand real pictures (tiny_imagenet10 of ``D3HR_BENCHMARK_DATA``, or else the
built-in digits), and a quarter of them again as links, to see what grows with images. Each command runs in a fresh process: the first look
(headers), the first full look, the second look, a plan, a distillation behind an untrained prior, and an evaluation. The distillation of
all images is killed twice, and goes on; ``--compare`` runs one that is not killed, too, and compares the sets byte for byte. What each step
took is kept as it ends, and a script that was stopped goes on from there.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from PIL import Image

import d3hr
from benchmarks.harness import WORK, argument_parser, record, write_untrained_prior
from benchmarks.real_data import SOURCES
from d3hr.fileio.atomic import read_json, write_json
from d3hr.prior.presets import PRESETS

IMAGES, CLASSES, TEST_IMAGES, SIDE = 1_281_167, 1_000, 1_000, 64
"""ImageNet-1K's, and how many are tested on; side of the pictures in pixels."""
PRIOR_SIDE = 16
SMALLER = 4
"""How many times fewer images the smaller data set has."""
DISTIL = ("--tolerance", "0.1", "--max-images-per-class", "20", "--modes", "1", "--ipc", "1", "--preset", "paper")
QUICK = ("--steps", "10", "--level", "3", "--num-candidates", "100")
PROTOCOL = "name: short\nepochs: 3\nbatch_size: 64\nlearning_rate: 0.01\n"
KILLS = (1 / 3, 2 / 3)
"""Shares of the classes whose statistics are finished when the distillation is killed."""
_POLL = 0.05
"""Seconds between two looks at a process."""
LOOKS: dict[str, list[str]] = {"first look": [], "first full look": ["--verify", "true"], "second look": []}
"""What is done -> flags of ``inspect``."""


def pictures() -> list[bytes]:
    """Return a few thousand JPEG files of real pictures."""
    if (SOURCES / "tiny_imagenet10").is_dir():
        table = datasets.load_dataset(str(SOURCES / "tiny_imagenet10"))["train"].cast_column("image", datasets.Image(decode=False))
        return [row["bytes"] for row in table["image"]]
    digits = d3hr.load_images("digits")
    blobs = []
    for name in digits.class_names:
        for pixels in digits.of_class(name):
            buffer = io.BytesIO()
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((SIDE, SIDE)).save(buffer, "jpeg")
            blobs.append(buffer.getvalue())
    return blobs


def numbered(jpeg: bytes, number: int) -> bytes:
    """Return a JPEG file with its number in a comment, so that no other has the same content."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + jpeg[2:]


def class_name(index: int) -> str:
    """Return the name of a class, of the length of ImageNet's."""
    return f"n{index:08d}"


def make_files(root: Path, count: int, classes: int, first: int, blobs: Sequence[bytes]) -> None:
    """Write ``count`` files in class folders, unless they are there; class by class, each whole or not at all."""
    number = first
    for label in range(classes):
        each = count // classes + (label < count % classes)
        folder = root / class_name(label)
        if not folder.exists():
            unfinished = root.with_name(f"{root.name}.partial") / folder.name
            unfinished.mkdir(parents=True, exist_ok=True)
            for index in range(each):
                content = numbered(blobs[(number + index) % len(blobs)], number + index)
                (unfinished / f"{folder.name}_{index}.JPEG").write_bytes(content)
            root.mkdir(exist_ok=True)
            unfinished.rename(folder)
        number += each


def make_links(root: Path, whole: Path) -> None:
    """Write a folder that has the first files of each class of another one, as further names of these files."""
    for folder in sorted(whole.iterdir()):
        if not (root / folder.name).exists():
            unfinished = root.with_name(f"{root.name}.partial") / folder.name
            unfinished.mkdir(parents=True, exist_ok=True)
            count = sum(1 for _ in folder.iterdir())
            for index in range(max(count // SMALLER, 2)):
                (unfinished / f"{folder.name}_{index}.JPEG").unlink(missing_ok=True)
                os.link(folder / f"{folder.name}_{index}.JPEG", unfinished / f"{folder.name}_{index}.JPEG")
            root.mkdir(exist_ok=True)
            unfinished.rename(root / folder.name)


class Watched:
    """A command in a fresh process, and the most memory that it and the processes that it starts have held."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._peaks: dict[int, int] = {}
        self._output = log.with_suffix(".out")
        self._began = time.perf_counter()
        arguments = [sys.executable, "-m", "d3hr", *command]
        with self._output.open("wb") as output, log.open("ab") as errors:
            self.process = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=output, stderr=errors)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            for number in _tree(self.process.pid):
                self._peaks[number] = max(_held(number), self._peaks.get(number, 0))
            time.sleep(_POLL)

    def until(self, done: Callable[[], bool]) -> bool:
        """Wait until ``done``, and kill the process then; return False where it has ended before."""
        while self.process.poll() is None:
            if done():
                self.process.kill()
                return True
            time.sleep(_POLL)
        return False

    def result(self) -> dict[str, Any]:
        """Wait for the end and return seconds, peak memory in MiB, and what was printed."""
        code = self.process.wait()
        seconds = round(time.perf_counter() - self._began, 2)
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a command ended with {code}: see {self._output.with_suffix('.txt')}")
        return {"seconds": seconds, "peak_mib": round(sum(self._peaks.values()) / 1024, 1), "output": self._output.read_text()}


def _tree(root: int) -> Iterator[int]:
    """Yield a process and those that it has started (Linux only)."""
    yield root
    try:
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
    except OSError:
        return


def _held(number: int) -> int:
    """Return the most KiB that a process has held."""
    try:
        status = Path(f"/proc/{number}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return 0


def distillation(images: Path, work: Path, out: Path) -> list[str]:
    """Return the arguments of the distillation."""
    return ["distill", str(images), "--prior", str(work / "prior"), "--out", str(out), *DISTIL, *QUICK]


def _has_files(folder: Path, count: float) -> bool:
    return folder.is_dir() and sum(1 for _ in folder.iterdir()) >= count


def look_and_distil(images: Path, work: Path, kills: Sequence[float], classes: int) -> dict[str, Any]:
    """Run every command on a folder of images and return what each took; steps that are finished are not run again."""
    place = work / f"{images.name}-steps"
    place.mkdir(exist_ok=True)
    environment = {"D3HR_CACHE": str(place / "cache")}

    def step(name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        file = place / f"{name.replace(' ', '-')}.json"
        if not file.exists():
            write_json(file, run())
        figures: dict[str, Any] = read_json(file)
        print(f"{images.name}: {name}: {figures['seconds']:,.1f} s, peak {figures['peak_mib']:,.0f} MiB", flush=True)
        return figures

    def command(*arguments: str) -> dict[str, Any]:
        found = Watched(arguments, environment, place / "log.txt").result()
        values = json.loads(found.pop("output"))
        return {**found, **{name: values[name] for name in ("images", "verified") if name in values}}

    def distil() -> dict[str, Any]:
        out = place / "set"
        runs = []
        for share in (*kills, math.inf):
            watched = Watched(distillation(images, work, out), environment, place / "log.txt")
            killed = watched.until(partial(_has_files, place / "set.partial" / "statistics", share * classes))
            found = watched.result()
            runs.append({"seconds": found["seconds"], "peak_mib": found["peak_mib"], "killed": killed})
        return {"seconds": round(sum(run["seconds"] for run in runs), 2), "peak_mib": max(run["peak_mib"] for run in runs), "runs": runs}

    prior, test, protocol = (str(work / name) for name in ("prior", "test", "short.yaml"))
    evaluate = ("evaluate", str(place / "set"), "--test", test, "--data", str(images), "--protocol", protocol, "--seeds", "[0]", "--json")
    figures = {name: step(name, partial(command, "inspect", str(images), "--json", *flags)) for name, flags in LOOKS.items()}
    figures["plan"] = step("plan", partial(command, "plan", str(images), "--prior", prior, "--ipc", "1", "--json"))
    figures["distill"] = step("distill", distil)
    figures["evaluate"] = step("evaluate", partial(command, *evaluate))
    return figures


def same_files(one: Path, other: Path) -> bool:
    """Return whether two folders hold the same images and statistics."""
    found = [sorted(file for file in root.rglob("*") if file.suffix in (".png", ".safetensors")) for root in (one, other)]
    names = [[str(file.relative_to(root)) for file in files] for files, root in zip(found, (one, other), strict=True)]
    return names[0] == names[1] and all(file.read_bytes() == again.read_bytes() for file, again in zip(*found, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--test-images", type=int, default=TEST_IMAGES)
    parser.add_argument("--work", type=Path, default=WORK / "many_files", help="where files and finished steps are kept")
    parser.add_argument("--compare", action="store_true", help="also run a distillation that is not killed")
    given = parser.parse_args(arguments)
    work = given.work / f"{given.images}-{given.classes}"
    work.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    blobs = pictures()
    make_files(work / "images", given.images, given.classes, 0, blobs)
    make_links(work / "fewer", work / "images")
    make_files(work / "test", given.test_images, given.classes, given.images, blobs)
    print(f"{given.images:,} files of {given.classes:,} classes: {time.perf_counter() - began:,.0f} s", flush=True)
    if not (work / "prior").exists():
        write_untrained_prior(work / "prior", PRESETS["tiny"], PRIOR_SIDE, [class_name(label) for label in range(given.classes)])
    (work / "short.yaml").write_text(PROTOCOL)
    fewer = look_and_distil(work / "fewer", work, (), given.classes)
    whole = look_and_distil(work / "images", work, KILLS, given.classes)
    apart = whole["first look"]["images"] - fewer["first look"]["images"]
    slopes = {name: round((whole[name]["peak_mib"] - fewer[name]["peak_mib"]) * 2**20 / apart, 1) for name in whole}
    ratio = whole["second look"]["seconds"] / whole["first full look"]["seconds"]
    print(f"second look over first: {ratio:.3f} (goal: at most 0.05)")
    print(f"bytes per image by which the peak grows: {slopes} (goal: at most 100)")
    largest = max(figures["peak_mib"] for figures in whole.values())
    print(f"largest peak: {largest:,.0f} MiB (goal: at most 4,096)")
    figures = {"fewer": fewer, "whole": whole, "second_over_first": round(ratio, 4), "bytes_per_image": slopes, "largest_peak_mib": largest}
    if given.compare:
        unkilled = work / "unkilled-steps"
        unkilled.mkdir(exist_ok=True)
        cache = {"D3HR_CACHE": str(work / "images-steps" / "cache")}
        Watched(distillation(work / "images", work, unkilled / "set"), cache, unkilled / "log.txt").result()
        figures["killed_is_the_same"] = same_files(work / "images-steps" / "set", unkilled / "set")
        print(f"the set of the killed distillation is that of one which was not killed: {figures['killed_is_the_same']}")
    settings = {"images": given.images, "classes": given.classes, "test_images": given.test_images, "side": SIDE}
    record("many_files", {**settings, "distill": [*DISTIL, *QUICK]}, figures)


if __name__ == "__main__":
    main()
