"""What ``d3hr update`` costs next to a full run of ``distill`` on the grown data, and how equal its set is.

Real images (CIFAR-10 at 32 pixels; ``--data digits``, at 8, needs no file) behind a small untrained prior, preset ``fast``. A set is made
of all classes but the last; then a fifth more images come to every second of them, about 10 % in all, and the last class as a new one. Both
runs are on the same grown folder, in this order: update, full run. Counts images that are inverted, calls of the network (one image going
once through it) and seconds of processor time, with the look at the files apart: the full run's finds all of them known. Compares, class by
class, pictures and statistics. What changes is inverted in proportion to the images added; every changed class is drawn whole.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import d3hr
from benchmarks.harness import argument_parser, record, write_untrained_prior
from benchmarks.real_data import IMAGE_SIZE, images_of, real_data
from d3hr.prior.presets import PRESETS
from d3hr.progress import SILENT
from d3hr.sets.distilled_set import DistilledSet

SETTINGS: dict[str, Any] = {"preset": "fast", "ipc": 10, "num_candidates": 10_000}
GROWTH = 0.2
"""Share of its images that a class gets more, every second one."""


@dataclass
class Calls:
    """Counts images that go through the networks of a prior: once through the encoder for each image that is inverted."""

    prior: d3hr.Prior
    network: int = 0
    encoder: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count inside the context."""

        def of_network(_: object, arguments: tuple[torch.Tensor, ...]) -> None:
            self.network += len(arguments[0])

        def of_encoder(_: object, arguments: tuple[torch.Tensor, ...]) -> None:
            self.encoder += len(arguments[0])

        with ExitStack() as hooks:
            hooks.enter_context(self.prior.network.register_forward_pre_hook(of_network))
            hooks.enter_context(self.prior.vae.encoder.register_forward_pre_hook(of_encoder))
            yield


def write_images(folder: Path, images: d3hr.ImageData, counts: dict[str, range]) -> None:
    """Write some images of classes as PNG files, whose names have the order of the images."""
    for name, chosen in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, pixels in zip(chosen, images.pixels(name, chosen), strict=True):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name / f"{index:05d}.png")


def run(photos: Path, prior: d3hr.Prior, out: Path, previous: DistilledSet | None = None) -> tuple[DistilledSet, dict[str, Any]]:
    """Make a set, by an update of ``previous`` if there is one, and return it with what that took."""
    calls, started = Calls(prior), time.process_time()
    images = d3hr.load_images(photos)
    looked = time.process_time()
    with calls.counted():
        if previous is None:
            made = d3hr.distill(images, prior, out, progress=SILENT, **SETTINGS)
        else:
            made = d3hr.update(previous, images, prior, out, progress=SILENT)
    seconds = {"look": round(looked - started, 2), "make": round(time.process_time() - looked, 2)}
    return made, {"images": len(images), "inverted": calls.encoder, "calls": calls.network, "seconds": seconds}


def pictures(made: DistilledSet, name: str) -> list[bytes]:
    """Return the files of a class."""
    entry = next(entry for entry in made.manifest.classes if entry.name == name)
    return [file.read_bytes() for file in entry.files(made.path)]


def compared(updated: DistilledSet, full: DistilledSet, names: Sequence[str]) -> dict[str, Any]:
    """Return how equal two sets are in some classes: pictures to the byte, statistics in units of the deviation, pixels in levels."""
    means, spreads, levels, pixels = [], [], [], []
    for name in names:
        mine, theirs = updated.statistics[name], full.statistics[name]
        means.append(float(((mine.mean - theirs.mean).abs() / theirs.std).max()))
        spreads.append(float(((mine.std - theirs.std).abs() / theirs.std).max()))
        difference = (updated.of_class(name).int() - full.of_class(name).int()).abs()
        levels.append(int(difference.max()))
        pixels.append(float((difference > 0).double().mean()))
    return {
        "classes": len(names),
        "same_bytes": sum(pictures(updated, name) == pictures(full, name) for name in names),
        "mean_off_sigma": max(means, default=0.0),
        "std_off": max(spreads, default=0.0),
        "largest_difference_of_a_pixel": max(levels, default=0),
        "share_of_pixels_that_differ": max(pixels, default=0.0),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", choices=("cifar10", "digits"), default="cifar10", help="real images (default: cifar10)")
    parser.add_argument("--per-class", type=int, default=800, help="images of a class before it grows (default: 800)")
    given = parser.parse_args(arguments)
    real = d3hr.load_images("digits") if given.data == "digits" else images_of(real_data("cifar10"), "train")[0]
    *old, new = real.class_names
    grown = old[::2]
    first, more = given.per_class, round(given.per_class * GROWTH)
    added = len(grown) * more + first
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_untrained_prior(work / "prior", PRESETS["tiny"], 8 if given.data == "digits" else IMAGE_SIZE, real.class_names)
        prior = d3hr.Prior.from_pretrained(work / "prior")
        write_images(work / "photos", real, dict.fromkeys(old, range(first)))
        before, began = run(work / "photos", prior, work / "before")
        write_images(work / "photos", real, {name: range(first, first + more) for name in grown} | {new: range(first)})
        updated, update = run(work / "photos", prior, work / "updated", before)
        full, whole = run(work / "photos", prior, work / "full")
        same = [name for name in old if name not in grown]
        equal = {
            "as_before": compared(updated, before, same),
            "same": compared(updated, full, same),
            "new": compared(updated, full, [new]),
            "grown": compared(updated, full, grown),
        }
    share = added / whole["images"]
    ratios = {
        "images": share,
        "classes": (len(grown) + 1) / len(real.class_names),
        "inverted": update["inverted"] / whole["inverted"],
        "calls": update["calls"] / whole["calls"],
        "seconds": update["seconds"]["make"] / whole["seconds"]["make"],
    }
    changed = len(grown) + 1
    print(f"{whole['images']:,} images, {100 * share:.1f} % of them added; {changed} of {len(real.class_names)} classes changed")
    for words, each in (("before", began), ("update", update), ("full run", whole)):
        seconds = each["seconds"]
        print(
            f"{words}: {each['inverted']:,} images inverted, {each['calls']:,} calls in all, {seconds['make']:.1f} s, and "
            f"{seconds['look']:.1f} s to look at the files"
        )
    seconds_per_call = (whole["seconds"]["make"] - update["seconds"]["make"]) / (whole["calls"] - update["calls"])
    ratios["constant_seconds"] = update["seconds"]["make"] - seconds_per_call * update["calls"]
    print(f"{1000 * seconds_per_call:.2f} ms a call, and {ratios['constant_seconds']:.1f} s whatever is added")
    print(
        f"update / full run: {ratios['inverted']:.3f} of the images inverted, {ratios['calls']:.3f} of the calls, "
        f"{ratios['seconds']:.3f} of the seconds, for {share:.3f} of the images in {ratios['classes']:.2f} of the classes"
    )
    for words, figures in equal.items():
        print(f"{words}: {figures}")
    record(
        "updating",
        {**SETTINGS, "data": given.data, "per_class": first, "added": added, "threads": torch.get_num_threads()},
        {"before": began, "update": update, "full": whole, "ratios": ratios, "equality": equal},
    )


if __name__ == "__main__":
    main()
