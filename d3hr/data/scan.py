"""Decodes every image of a source once, before anything else is done with them: which can be read, how large they are, what to say of them.

Legend: N images.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from d3hr.data.codec import Facts, examine
from d3hr.data.depth import FULL, shown_bits
from d3hr.data.formats import refused_kind
from d3hr.data.sources import Source
from d3hr.errors import DataError, listed
from d3hr.progress import Progress

CHUNK = 512
"""How many encoded images are held at once."""
_DIGEST = 8
"""Bytes of each SHA-256 that are kept."""
DECODERS = min(8, os.cpu_count() or 1)
"""Threads that decode images."""


@dataclass
class Scan:
    """What was found in N images.

    Attributes:
        fingerprint: SHA-256 over class names and the contents of all images in order.
        bad: index -> why the image cannot be read, for each that cannot.
        sizes: (width, height) of each image; None for those that cannot be read.
        peaks: the largest value of each 16-bit picture whose file does not tell its range.
        frames: indices of images of several frames or pages.
        digests: the first bytes of the SHA-256 of each image; empty for those that cannot be read.
    """

    fingerprint: str = ""
    bad: dict[int, str] = field(default_factory=dict)
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)

    @property
    def bits(self) -> int:
        """How many bits count in 16-bit pictures whose files do not tell: as many as the largest value of all needs, 8, 12 or 16."""
        return shown_bits(max(self.peaks)) if self.peaks else FULL

    def remarks(self, images: Source) -> tuple[str, ...]:
        """Return what is read otherwise than one may expect, a line each."""
        lines = []
        if self.bits < FULL:
            lines.append(f"{len(self.peaks)} 16-bit picture(s) hold no value above {max(self.peaks):,}: read as {self.bits} bits")
        if self.frames:
            example = images.name(self.frames[0])
            lines.append(f"{len(self.frames)} image(s) of several frames or pages, such as {example}: the first of each is read")
        return tuple(lines)


def scan(images: Source, name: str, progress: Progress) -> Scan:
    """Decode every image once and return what was found."""
    found = Scan()
    digest = hashlib.sha256(repr(images.class_names).encode())
    digest.update(images.labels.tobytes())

    def check(blob: bytes) -> tuple[bytes, Facts | str]:
        try:
            return hashlib.sha256(blob).digest(), examine(blob)
        except ValueError as error:
            return b"", str(error)

    total = len(images.labels)
    one_of_each: dict[tuple[int, int], tuple[int, int]] = {}
    with progress.bar(f"checking {name}", total) as bar, ThreadPoolExecutor(DECODERS) as pool:
        for start in range(0, total, CHUNK):
            indices = range(start, min(start + CHUNK, total))
            for index, (content, facts) in zip(indices, pool.map(check, images.read(indices)), strict=True):
                digest.update(content)
                found.digests.append(content[:_DIGEST])
                if isinstance(facts, str):
                    found.bad[index] = facts
                    found.sizes.append(None)
                    continue
                found.sizes.append(one_of_each.setdefault(facts.size, facts.size))
                found.peaks += [facts.peak] if facts.peak is not None else []
                found.frames += [index] if facts.frames else []
            bar.update(indices.stop)
    found.fingerprint = digest.hexdigest()
    return found


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
