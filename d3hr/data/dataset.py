"""A data set of real images in named classes: read one class at a time in bounded memory.

Legend: N images, H = W image size in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d3hr.data.codec import Fit, open_upright, require_side, to_pixels, to_unit_range
from d3hr.data.contents import Contents
from d3hr.data.decoding import HELD, decode_each
from d3hr.data.record import DataRecord
from d3hr.data.showing import SHOWN_CLASSES, SHOWN_IMAGES, notebook_page
from d3hr.data.sources import Source
from d3hr.errors import DataError, SettingsError, listed, require_class
from d3hr.fileio.names import similar_names
from d3hr.seeds import generator_for

OPEN_IMAGES = "open them with d3hr.load_images(FOLDER)."
"""What to do where images are needed and something else is given."""
_Indices = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class ImageData:
    """Images of named classes, read from their source when they are needed.

    Iterating yields ``(class name, batches)``, where ``batches`` yields float tensors [n, 3, H, W] in [-1, 1]; memory holds one batch. An
    index gives ``(image [3, H, W], label)``.

    Attributes:
        source: the source, as the user named it.
        split: the split that was read, if the source has several.
        image_size: side H = W, in pixels, that images are delivered in.
        fit: what becomes of pictures that are not square, as in :func:`~d3hr.data.codec.to_pixels`.
        fingerprint: SHA-256 over class names and the contents of all images in order, and over what is done to them that is not usual.
        sizes: how often each (width, height) occurs.
        skipped: unreadable images that were left out, each with its reason.
        ignored: files and folders of the source that are not read: no images, hidden, or left by an operating system.
        splits: all splits of the source, as they are called there.
        notes: what was decided about the source, one sentence each, such as which folders are no classes.
        contents: which images are the same: repeats within a class are left out, unless they were to be kept.
        bits: how many bits count in 16-bit pictures whose files do not tell: 8 or 12 if no value in the whole data set is larger.
        in_memory: whether the source is an object of this program, which no other program finds by its name.
        hold_out: share of each class that :meth:`divided` left out, 0 to 1.
    """

    source: str
    split: str | None
    image_size: int
    fingerprint: str
    sizes: dict[tuple[int, int], int]
    skipped: tuple[str, ...]
    ignored: tuple[str, ...]
    splits: tuple[str, ...]
    notes: tuple[str, ...]
    fit: Fit
    contents: Contents
    bits: int
    in_memory: bool
    method: ClassVar[str] = "folder"
    """How the images were made is not known: there is no manifest, and no seed."""
    seed: ClassVar[int] = 0
    manifest: ClassVar[None] = None
    pack: ClassVar[int] = 1

    _images: Source
    _order: _Indices
    _kept: NDArray[np.uint8] | None = None
    """Decoded pixels [N, 3, H, W] in the order of the classes."""
    hold_out: float = 0.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""
        return self._images.class_names

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return {name: len(indices) for name, indices in self._by_class.items()}

    @property
    def similar_names(self) -> tuple[tuple[str, ...], ...]:
        """Groups of class names that differ only in case, spaces or Unicode form."""
        return similar_names(self.class_names)

    @property
    def ipc(self) -> int:
        """Images per class; where classes differ, the mean, rounded down."""
        return len(self) // len(self.class_names)

    @property
    def record(self) -> DataRecord:
        """What the manifest of a set that is made from these images says of them; errors are those of :attr:`Contents.required`."""
        return DataRecord(
            source=self.source,
            split=self.split,
            fingerprint=self.fingerprint,
            images=len(self),
            skipped=self.skipped,
            duplicates=len(self.contents.required.repeats),
            conflicting_duplicates=len(self.contents.contradictions),
            keep_duplicates=bool(np.isin(self.contents.repeats, self._order).any()),
            hold_out=self.hold_out,
            fit=self.fit,
            **({"in_memory": True} if self.in_memory else {}),
        )

    @property
    def identity(self) -> str:
        """The fingerprint."""
        return self.fingerprint

    @property
    def cropped(self) -> float:
        """Share of a picture that the centre crop drops, on average; 0 with another fit."""
        dropped = sum(count * (1 - min(size) / max(size)) for size, count in self.sizes.items())
        return dropped / sum(self.sizes.values()) if self.fit == "crop" else 0.0

    def digests(self, class_name: str) -> _Indices:
        """Return the first 64 bits of the SHA-256 of each image of a class, int64 [N]; errors likewise."""
        return self.contents.required.digests[self._indices(class_name)]

    def overlap(self, test: ImageData) -> int:
        """Return how many of the test images are among these, byte for byte; errors are those of :attr:`record`."""
        return int(np.isin(test.contents.required.digests[test._order], self.contents.required.digests[self._order]).sum())

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[tuple[str, Iterator[Tensor]]]:
        for name in self.class_names:
            yield name, self.batches(name)

    def batches(self, class_name: str, batch_size: int = 64) -> Iterator[Tensor]:
        """Yield the images of one class, in order, as tensors [n <= batch_size, 3, H, W] in [-1, 1]."""
        indices = self._indices(class_name)
        for start in range(0, len(indices), batch_size):
            yield to_unit_range(self._decode(indices[start : start + batch_size]))

    def of_class(self, class_name: str, count: int | None = None) -> Tensor:
        """Return the first ``count`` images of a class, by default all of them, uint8 [K, 3, H, W]; encoded images are read in chunks."""
        indices = self._indices(class_name)[:count]
        return torch.cat([self._decode(indices[start : start + HELD]) for start in range(0, len(indices), HELD)])

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return all images, uint8 [N, 3, H, W], class by class, and their labels, int64 [N]; pixels that are kept are not copied."""
        images = torch.cat([self.of_class(name) for name in self.class_names]) if self._kept is None else torch.from_numpy(self._kept)
        return images, torch.from_numpy(self._images.labels[self._order])

    def pixels(self, class_name: str, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the images uint8 [n, 3, H, W] at ``indices`` of one class; index 0 is its first image."""
        return self._decode(self._indices(class_name)[np.asarray(indices)])

    def names(self, class_name: str, indices: Sequence[int] | Tensor) -> list[str]:
        """Return the names of the images at ``indices`` of one class in their source: files, or rows of a table."""
        return [self._images.name(int(index)) for index in self._indices(class_name)[np.asarray(indices)]]

    def pick(self, class_name: str, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the images [n, 3, H, W] in [-1, 1] at ``indices`` of one class; index 0 is its first image."""
        return to_unit_range(self.pixels(class_name, indices))

    def gather(self, positions: Sequence[int] | Tensor, *, as_pixels: bool = False) -> tuple[Tensor, Tensor]:
        """Return ``(images [n, 3, H, W] in [-1, 1], or uint8, labels [n])`` at ``positions`` in the order of the classes."""
        indices = self._order[np.asarray(positions)]
        images = self._decode(indices)
        return images if as_pixels else to_unit_range(images), torch.from_numpy(self._images.labels[indices])

    @overload
    def __getitem__(self, position: int) -> tuple[Tensor, int]: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[Tensor, Tensor]: ...

    def __getitem__(self, position: int | slice) -> tuple[Tensor, Tensor | int]:
        """Return ``(image [3, H, W] in [-1, 1], label)`` at a position, or ``(images [n, 3, H, W], labels [n])`` of a slice."""
        if isinstance(position, slice):
            return self.gather(range(len(self))[position])
        images, labels = self.gather([range(len(self))[position]])
        return images[0], int(labels[0])

    def __repr__(self) -> str:
        return f"ImageData({self.source!r}, {len(self):,} images of {len(self.class_names)} classes, {self.image_size} px)"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: counts, and some pictures."""
        counts = listed([f"{name}: {count:,}" for name, count in self.counts.items()], separator="; ")
        lines = [f"{len(self):,} images of {len(self.class_names)} classes, {self.image_size} px", counts]
        rows = {name: self.of_class(name, SHOWN_IMAGES) for name in self.class_names[:SHOWN_CLASSES]}
        return notebook_page(f"Images of {self.source}", lines, rows, classes=len(self.class_names))

    def at_size(self, image_size: int) -> ImageData:
        """Return the same images, delivered at another size."""
        return self if image_size == self.image_size else replace(self, image_size=require_side(image_size), _kept=None)

    def with_pixels(self, pixels: NDArray[np.uint8]) -> ImageData:
        """Return the same images, which are no longer decoded: ``pixels`` [N, 3, H, W], class by class, are theirs at ``image_size``."""
        return replace(self, _kept=pixels)

    def divided(self, share: float) -> tuple[ImageData, ImageData]:
        """Return the images without a share of each class, and that share, at least one image each: the same each time.

        Raises:
            SettingsError: ``share`` is not between 0 and 1.
            DataError: a class has a single image.
        """
        if not 0 < share < 1:
            raise SettingsError("A share to hold out lies between 0 and 1.", found=f"{share:g}", hint="hold out 0.2, for example.")
        single = [name for name, count in self.counts.items() if count < 2]
        if single:
            raise DataError("A class with one image cannot be divided.", found=listed(single), hint="add images, or hold nothing out.")
        outside, inside = dict[str, _Indices](), dict[str, _Indices]()
        for name, indices in self._by_class.items():
            count = min(max(round(share * len(indices)), 1), len(indices) - 1)
            order = torch.randperm(len(indices), generator=generator_for(0, "hold out", name)).numpy()
            outside[name], inside[name] = np.sort(order[count:]), np.sort(order[:count])
        return replace(self.only(outside, f"without {share!r}"), hold_out=share), self.only(inside, f"held out {share!r}")

    def only(self, chosen: Mapping[str, Sequence[int] | _Indices], words: str) -> ImageData:
        """Return some images of each class, by their indices in it; ``words`` tell in the fingerprint which these are."""
        order = [indices[np.asarray(chosen[name], dtype=np.int64)] for name, indices in self._by_class.items()]
        digest = hashlib.sha256(f"{self.fingerprint} {words}".encode())
        return replace(self, fingerprint=digest.hexdigest(), _order=np.concatenate(order), _kept=None, hold_out=0.0)

    def ordered(self, class_names: Sequence[str]) -> ImageData:
        """Return the same images with their classes, all of them, in another order, which is that of the labels."""
        if tuple(class_names) == self.class_names:
            return self
        images = copy(self._images)
        images.class_names = tuple(class_names)
        images.labels = np.argsort([self.class_names.index(name) for name in class_names])[self._images.labels]
        order = np.concatenate([self._by_class[name] for name in class_names])
        digest = hashlib.sha256(f"{self.fingerprint} {images.class_names!r}".encode())
        return replace(self, fingerprint=digest.hexdigest(), _images=images, _order=order, _kept=None)

    def renamed(self, class_names: Sequence[str]) -> ImageData:
        """Return the same images with other names for the classes, in the order of the labels; the fingerprint changes with them.

        Raises:
            DataError: there are more or fewer names than classes, or a name occurs twice.
        """
        if len(class_names) != len(self.class_names) or len(set(class_names)) < len(class_names):
            raise DataError(
                f"{self.source} cannot be given these class names.",
                found=f"{len(set(class_names))} different names for {len(self.class_names)} classes",
                hint="give each class a name of its own.",
            )
        images = copy(self._images)
        images.class_names = tuple(class_names)
        digest = hashlib.sha256(f"{self.fingerprint} {images.class_names!r}".encode())
        return replace(self, fingerprint=digest.hexdigest(), _images=images)

    def _indices(self, class_name: str) -> _Indices:
        require_class(self.source, class_name, self.class_names)
        return self._by_class[class_name]

    @cached_property
    def _by_class(self) -> dict[str, _Indices]:
        """Class -> the indices of its images in the source."""
        counts = np.bincount(self._images.labels[self._order], minlength=len(self.class_names))
        return dict(zip(self.class_names, np.split(self._order, np.cumsum(counts)[:-1]), strict=True))

    @cached_property
    def _positions(self) -> _Indices:
        """Index in the source -> position in the order of the classes."""
        positions = np.zeros(int(self._order.max()) + 1, dtype=np.int64)
        positions[self._order] = np.arange(len(self._order))
        return positions

    def _decode(self, indices: Sequence[int] | _Indices) -> Tensor:
        if self._kept is not None:
            return torch.from_numpy(self._kept[self._positions[np.asarray(indices)]])
        return decode_each(self._images, [int(index) for index in indices], self.image_size, self._pixels)

    def _pixels(self, index: int, blob: bytes) -> NDArray[np.uint8]:
        try:
            return to_pixels(open_upright(blob, self.bits, self.image_size), self.image_size, self.fit)
        except ValueError as error:
            raise DataError(
                f"{self._images.name(index)} of {self.source} can no longer be read.",
                found=f"{error}, where it was an image when the data were checked",
                hint="restore it or run again: the data are checked anew.",
            ) from error
