"""Decodes every image of a source once, before anything else is done with them: which can be read, how large they are, what to say of them.

Legend: N images.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from d3hr.data.codec import Found, examine
from d3hr.data.depth import FULL, shown_bits
from d3hr.data.formats import refused_kind
from d3hr.data.scan_cache import Facts, ScanCache
from d3hr.data.sources import Source
from d3hr.data.stamps import stamps_of
from d3hr.errors import DataError, listed
from d3hr.progress import Progress

CHUNK = 512
"""How many encoded images are held at once."""
DECODERS = min(8, os.cpu_count() or 1)
"""Threads that decode images."""


@dataclass(frozen=True)
class Scan:
    """What was found in N images.

    Attributes:
        fingerprint: SHA-256 over class names and the contents of all images in order.
        facts: what each image is, structured array [N]; zero for those that cannot be read.
        bad: index -> why the image cannot be read, for each that cannot.
    """

    fingerprint: str
    facts: Facts
    bad: dict[int, str]

    @property
    def digests(self) -> NDArray[np.int64]:
        """The first 8 bytes of the SHA-256 of each image, [N]."""
        return np.ascontiguousarray(self.facts["content"][:, :8]).view("<i8")[:, 0]

    def sizes(self, indices: NDArray[np.int64]) -> dict[tuple[int, int], int]:
        """Return how often each (width, height) occurs among the images at ``indices``."""
        pairs = np.stack([self.facts["width"][indices], self.facts["height"][indices]], axis=1)
        sizes, counts = np.unique(pairs, axis=0, return_counts=True)
        return {(int(width), int(height)): int(count) for (width, height), count in zip(sizes, counts, strict=True)}

    @property
    def bits(self) -> int:
        """How many bits count in 16-bit pictures whose files do not tell: as many as the largest value of all needs, 8, 12 or 16."""
        return shown_bits(int(self.facts["peak"].max())) if self._deep else FULL

    @property
    def _deep(self) -> int:
        return int((self.facts["peak"] >= 0).sum())

    def remarks(self, images: Source) -> tuple[str, ...]:
        """Return what is read otherwise than one may expect, a line each."""
        lines = []
        if self.bits < FULL:
            lines.append(f"{self._deep} 16-bit picture(s) hold no value above {self.facts['peak'].max():,}: read as {self.bits} bits")
        if (frames := np.flatnonzero(self.facts["frames"])).size:
            example = images.name(int(frames[0]))
            lines.append(f"{len(frames)} image(s) of several frames or pages, such as {example}: the first of each is read")
        return tuple(lines)


def scan(images: Source, name: str, progress: Progress, cache: ScanCache) -> Scan:
    """Decode every image that the cache does not know once, and return what was found."""
    with cache.locked():
        stamps = stamps_of(images, len(images.labels))
        facts = cache.lookup(stamps, progress)
        unknown = np.flatnonzero(facts["stamp"] == 0)
        bad = _examine(images, unknown, facts, name, progress)
        read = np.delete(unknown, np.flatnonzero(np.isin(unknown, list(bad))))
        facts["stamp"][read] = stamps[read]
        if stamps[read].any():
            cache.keep(facts)
    digest = hashlib.sha256(repr(images.class_names).encode())
    digest.update(images.labels.tobytes())
    digest.update(np.delete(facts["content"], list(bad), axis=0).tobytes())
    return Scan(digest.hexdigest(), facts, bad)


def _examine(images: Source, indices: NDArray[np.int64], facts: Facts, name: str, progress: Progress) -> dict[int, str]:
    """Write into ``facts`` what the images at ``indices`` are, and return why others cannot be read; chunks are read ahead."""
    bad = {}

    def check(blob: bytes) -> tuple[bytes, Found | str]:
        try:
            return hashlib.sha256(blob).digest(), examine(blob)
        except ValueError as error:
            return b"", str(error)

    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    with progress.bar(f"checking {name}", len(facts)) as bar, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(DECODERS) as pool:
        done = len(facts) - len(indices)
        bar.update(done)
        ahead = [reader.submit(images.read, chunk.tolist()) for chunk in chunks[:1]]
        for chunk, following in zip_longest(chunks, chunks[1:]):
            blobs = ahead.pop().result()
            if following is not None:
                ahead.append(reader.submit(images.read, following.tolist()))
            for index, (content, found) in zip(chunk.tolist(), pool.map(check, blobs), strict=True):
                if isinstance(found, str):
                    bad[index] = found
                else:
                    peak = -1 if found.peak is None else found.peak
                    facts[index] = (0, np.frombuffer(content, dtype=np.uint8), *found.size, peak, found.frames)
            done += len(chunk)
            bar.update(done)
    return bad


def median_side(sizes: Mapping[tuple[int, int], int]) -> int:
    """Return the median of the shorter sides of all images; of an even number, the lower of the two in the middle."""
    sides = np.sort(np.repeat([min(size) for size in sizes], list(sizes.values())))
    return int(sides[(len(sides) - 1) // 2])


def require_every_class(images: Source, name: str, order: NDArray[np.int64], bad: Mapping[int, str]) -> None:
    """Refuse a source of which a class has no image among the indices ``order``."""
    for label in np.flatnonzero(np.bincount(images.labels[order], minlength=len(images.class_names)) == 0):
        seen, do = _without_images(images, int(label), bad)
        raise DataError(f"Class {images.class_names[label]!r} of {name} has no readable image.", found=seen, hint=do)


def _without_images(images: Source, label: int, bad: Mapping[int, str]) -> tuple[str, str]:
    """Return what was found in place of the images of a class that has none to read, and what to do: its files may be of another kind."""
    reasons = [f"{images.name(int(index))}: {bad[int(index)]}" for index in np.flatnonzero(images.labels == label)]
    if reasons:
        return listed(reasons, separator="\n         ", limit=3), "repair or replace them, or remove the class."
    others = [PurePath(name) for name in images.ignored if f"/{images.class_names[label]}/" in f"/{PurePath(name).as_posix()}"]
    kinds = Counter(kind for file in others if (kind := refused_kind(file.suffix)))
    if kinds:
        return ", ".join(f"{count} {what}" for (what, _), count in kinds.items()), "; ".join(do for _, do in kinds) + "."
    return f"{len(others)} file(s), none of them an image", "add images to it, or remove the empty class."
