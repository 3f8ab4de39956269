"""Decodes every image of a source once, before anything else is done with them: which can be read, how large they are, what to say of them.

Legend: N images.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from d3hr.data.ahead import ahead, decoding_threads
from d3hr.data.codec import examine
from d3hr.data.decoding import HELD, OnDisk
from d3hr.data.depth import FULL, shown_bits
from d3hr.data.formats import refused_kind
from d3hr.data.headers import Found, examine_header
from d3hr.data.scan_cache import FACTS, Facts, ScanCache
from d3hr.data.sources import Source
from d3hr.data.stamps import Stamps, stamps_of
from d3hr.errors import DataError, listed
from d3hr.progress import Bar, Progress

PART = 2**16
"""How many images are scanned before what was found is kept."""
QUICK = 10_000
"""How many images are decoded where headers would do: seconds for small pictures, half a minute for photos, and duplicates are found."""

_NOTHING = np.array([(0, np.zeros(32, dtype=np.uint8), 0, 0, -1, False)], dtype=FACTS)[0]
"""The facts of an image that is not known."""


@dataclass(frozen=True)
class Scan:
    """What was found in N images.

    Attributes:
        verified: whether every image was decoded; otherwise its header was read.
        fingerprint: SHA-256 over class names and the contents of all images in order; if not verified, over what headers and stamps say.
        digests: the first 8 bytes of the SHA-256 of each image, [N]; zero for those that cannot be read, and for all if not verified.
        shapes: width and height of each image in pixels, int32 [N, 2]; likewise.
        bad: index -> why the image cannot be read, for each that cannot.
        deep: how many 16-bit pictures have files that do not tell their range.
        peak: the largest value of these; -1 where there are none.
        frames: how many images have several frames.
        first_of_frames: the index of the first of them.
    """

    verified: bool
    fingerprint: str
    digests: NDArray[np.int64]
    shapes: NDArray[np.int32]
    bad: dict[int, str]
    deep: int
    peak: int
    frames: int
    first_of_frames: int

    def sizes(self, indices: NDArray[np.int64]) -> dict[tuple[int, int], int]:
        """Return how often each (width, height) occurs among the images at ``indices``."""
        sizes = Counter[tuple[int, int]]()
        for part in _parts(len(indices)):
            pairs, counts = np.unique(self.shapes[indices[part]].view("<i8"), return_counts=True)  # as numbers: rows are sorted slowly
            for (width, height), count in zip(pairs.view("<i4").reshape(-1, 2).tolist(), counts.tolist(), strict=True):
                sizes[width, height] += count
        return dict(sorted(sizes.items()))

    @property
    def bits(self) -> int:
        """How many bits count in 16-bit pictures whose files do not tell: as many as the largest value of all needs, 8, 12 or 16."""
        return shown_bits(self.peak) if self.deep else FULL

    def remarks(self, images: Source) -> tuple[str, ...]:
        """Return what is read otherwise than one may expect, a line each."""
        lines = []
        if self.bits < FULL:
            lines.append(f"{self.deep} 16-bit picture(s) hold no value above {self.peak:,}: read as {self.bits} bits")
        if self.frames:
            example = images.name(self.first_of_frames)
            lines.append(f"{self.frames} image(s) of several frames or pages, such as {example}: the first of each is read")
        return tuple(lines)


def scan(images: Source, name: str, progress: Progress, cache: ScanCache, verify: bool | None = True) -> Scan:
    """Decode every image that the cache does not know once, and return what was found; what is found is kept part by part.

    Args:
        images: the images.
        name: what they are called.
        progress: where to report.
        cache: what is known.
        verify: False to read headers alone; None to decode unless more than :data:`QUICK` images would have to be.
    """
    total = len(images.labels)
    digests, shapes = np.zeros(total, dtype=np.int64), np.zeros((total, 2), dtype="<i4")
    bad: dict[int, str] = {}
    deep, peak, frames, first_of_frames = 0, -1, 0, -1
    with cache.locked(), progress.bar(f"checking {name}", total) as bar:
        stamps = stamps_of(images, total)
        if verify is None:
            verify = _is_quick(cache, stamps, progress)
        digest = hashlib.sha256(repr(images.class_names).encode() + (b"" if verify else b"headers"))
        digest.update(np.ascontiguousarray(images.labels).data)
        for part in _parts(total):
            facts = cache.lookup(stamps[part], progress)
            unknown = np.flatnonzero(_unknown(facts, verify))
            facts[unknown] = _NOTHING
            known = part.start + len(facts) - len(unknown)
            bar.update(known)
            unread = _examine(images, part.start + unknown, facts, part.start, bar, known, verify)
            bad |= unread
            readable = np.ones(len(facts), dtype=bool)
            readable[np.array([*unread], dtype=np.int64) - part.start] = False
            unknown = unknown[readable[unknown]]
            facts["stamp"][unknown] = stamps[part][unknown]
            if len(unknown) or not cache.has(stamps[part]):
                cache.keep(stamps[part], facts)
            digest.update(np.ascontiguousarray(facts["content"][readable] if verify else facts).data)
            digests[part] = np.ascontiguousarray(facts["content"][:, :8]).view("<i8")[:, 0]
            shapes[part] = np.stack([facts["width"], facts["height"]], axis=1)
            deep, peak = deep + int((facts["peak"] >= 0).sum()), max(peak, int(facts["peak"].max()))
            several = np.flatnonzero(facts["frames"])
            if len(several) and not frames:
                first_of_frames = part.start + int(several[0])
            frames += len(several)
        cache.forget_others([stamps[part] for part in _parts(total)])
    return Scan(verify, digest.hexdigest(), digests, shapes, bad, deep, peak, frames, first_of_frames)


def _is_quick(cache: ScanCache, stamps: Stamps, progress: Progress) -> bool:
    """Return whether decoding what the cache does not know takes seconds."""
    unknown = 0
    for part in _parts(len(stamps)):
        unknown += int(_unknown(cache.lookup(stamps[part], progress), verify=True).sum())
        if unknown > QUICK:
            return False
    return True


def _unknown(facts: Facts, verify: bool) -> NDArray[np.bool_]:
    """Return which images are not known [R], or only by their headers, which have no content hash."""
    known: NDArray[np.bool_] = facts["stamp"] != 0
    return ~(known & facts["content"].any(axis=1)) if verify else ~known


def _parts(total: int) -> list[slice]:
    """Return the parts of so many images: consecutive ones."""
    return [slice(start, min(start + PART, total)) for start in range(0, total, PART)]


def _examine(images: Source, indices: NDArray[np.int64], facts: Facts, first: int, bar: Bar, done: int, verify: bool) -> dict[int, str]:
    """Write what the images at ``indices`` are into ``facts``, those of the images from ``first``; return why others cannot be read.

    ``done`` images are known before.
    """
    bad = {}

    chunks = [indices[start : start + HELD] for start in range(0, len(indices), HELD)]
    for chunk, results in zip(chunks, _looked(images, chunks, verify), strict=True):
        for index, (content, found) in zip(chunk.tolist(), results, strict=True):
            if isinstance(found, str):
                bad[index] = found
            else:
                peak = -1 if found.peak is None else found.peak
                facts[index - first] = (0, np.frombuffer(content, dtype=np.uint8), *found.size, peak, found.frames)
        done += len(chunk)
        bar.update(done)
    return bad


def _looked(images: Source, chunks: Sequence[NDArray[np.int64]], verify: bool) -> Iterator[list[tuple[bytes, Found | str]]]:
    """Yield the SHA-256 and what was found, or why it cannot be read, of the images of each chunk; threads are some chunks ahead.

    Files are read by the threads that decode them, other sources by one thread, since not all can be read by several.
    """

    def look(contents: Sequence[bytes | Path]) -> list[tuple[bytes, Found | str]]:
        return [_look(content, verify) for content in contents]

    threads = decoding_threads()
    if isinstance(images, OnDisk):
        get: Callable[[Sequence[int]], Sequence[bytes | Path]] = images.read if verify else images.places
        return ahead((partial(lambda chunk: look(get(chunk)), chunk.tolist()) for chunk in chunks), threads)
    return ahead((partial(look, blobs) for blobs in ahead(partial(images.read, chunk.tolist()) for chunk in chunks)), threads)


def _look(content: bytes | Path, verify: bool) -> tuple[bytes, Found | str]:
    try:
        if verify:
            assert isinstance(content, bytes)
            return hashlib.sha256(content).digest(), examine(content)
        return bytes(32), examine_header(content)
    except ValueError as error:
        return b"", str(error)


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
