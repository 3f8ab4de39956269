"""Images per second of the loader that feeds inversion, against those of Pillow alone on the same files with as many threads.

The same JPEG files, made out of real pictures, lie in a folder, a zip file, a tar file, WebDataset shards and a parquet file. The bare
decoder reads files, decodes them and keeps the pixels of a batch; the loader also orders, checks and scales them. Both take turns, and
the best of several rounds of each counts, in seconds of the clock; seconds of the processor are kept too, which other work disturbs less.
The folder is also read by processes in place of threads (``--decoders``), whose seconds of the processor are not seen here.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

import d3hr
from benchmarks.harness import argument_parser, record
from benchmarks.speed.many_files import make_files, pictures
from d3hr.data.ahead import decoding_threads
from d3hr.data.loader import Batches

CLASSES, BATCH, GOAL = 10, 64, 0.9


def at_side(jpeg: bytes, side: int) -> bytes:
    """Return a JPEG file of another side."""
    with Image.open(io.BytesIO(jpeg)) as image:
        if image.size == (side, side):
            return jpeg
        buffer = io.BytesIO()
        image.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=90)
        return buffer.getvalue()


def containers(work: Path, count: int, side: int) -> dict[str, Path]:
    """Write the same files in every container and return name -> path."""
    blobs = [at_side(jpeg, side) for jpeg in pictures()[:count]]
    folder = work / "folder"
    make_files(folder, count, CLASSES, 0, blobs)
    files = sorted(folder.rglob("*.JPEG"))
    with zipfile.ZipFile(work / "images.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(folder))
    with tarfile.open(work / "images.tar", "w") as tar:
        tar.add(folder, ".")
    (work / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(work / "shards" / f"{shard:03d}.tar", "w") as tar:
            for number, file in enumerate(files[shard::2]):
                tar.add(file, f"{number:06d}.jpg")
                label = file.parent.name.encode()
                info = tarfile.TarInfo(f"{number:06d}.cls")
                info.size = len(label)
                tar.addfile(info, io.BytesIO(label))
    labels = [file.parent.name for file in files]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=sorted(set(labels)))})
    rows = {"image": [{"bytes": file.read_bytes(), "path": None} for file in files], "label": labels}
    (work / "parquet").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(work / "parquet" / "train.parquet")
    names = {"folder": folder, "zip": work / "images.zip", "tar": work / "images.tar", "webdataset": work / "shards"}
    return {**names, "parquet": work / "parquet"}


def decode(files: Sequence[Path]) -> int:
    """Decode files with Pillow alone and return how many."""
    pixels = [np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB")) for file in files]
    return len(pixels)


def bare(files: Sequence[Path]) -> Callable[[], int]:
    """Return what decodes all files, in as many threads as the loader."""

    def run() -> int:
        with ThreadPoolExecutor(decoding_threads()) as pool:
            return sum(pool.map(decode, [files[start : start + BATCH] for start in range(0, len(files), BATCH)]))

    return run


def loader(images: d3hr.ImageData, decoders: int = 0) -> Callable[[], int]:
    """Return what reads all images as a distillation does, decoded by threads, or by as many processes as ``decoders``."""
    batches = Batches(images, decoders)

    def run() -> int:
        return sum(len(batch) for name, count in images.counts.items() for batch in batches.of(name, range(count), BATCH))

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=64, help="side of the pictures in pixels; that of the real ones is 64")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        found = containers(Path(work), given.images, given.side)
        runs = {"bare": bare(sorted(found["folder"].rglob("*.JPEG")))}
        runs |= {name: loader(d3hr.load_images(path)) for name, path in found.items()}
        runs["processes"] = loader(d3hr.load_images(found["folder"]), decoding_threads())
        clock: dict[str, list[float]] = {name: [] for name in runs}
        processor: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(given.rounds):
            for name, run in runs.items():
                began, worked = time.perf_counter(), time.process_time()
                done = run()
                assert done == given.images, f"{name}: {done} images"
                clock[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - worked)
    figures = {}
    for name in runs:
        ratio, of_processor = min(clock["bare"]) / min(clock[name]), min(processor["bare"]) / min(processor[name])
        figures[name] = {
            "images_per_second": round(given.images / min(clock[name])),
            "of_bare": round(ratio, 3),
            "of_bare_by_processor": round(of_processor, 3),
        }
        rate = round(given.images / min(clock[name]))
        print(f"{name:>10}: {rate:8,} images/s, {ratio:.2f} of the bare decoder, by processor {of_processor:.2f}")
    print(f"goal: at least {GOAL}")
    record("reading", {"images": given.images, "side": given.side, "batch": BATCH, "threads": decoding_threads()}, figures)


if __name__ == "__main__":
    main()
