"""Real images in: a folder, a Hub id, a folder of parquet files, or the built-in digits; classes by name.

Every source is a :class:`_Source` of encoded images, so that decoding, its safety limits and its error messages exist once.

Legend: N images, H = W image size in pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from d3hr.errors import DataError, SettingsError, UnreadableImages, listed
from d3hr.progress import SILENT, Progress

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
SPLIT_FOLDERS = ("train", "training", "validation", "valid", "val", "test", "testing")
MAX_PIXELS = 89_478_485
"""Largest width x height that is decoded (Pillow's own limit against decompression bombs, here an error)."""
MIN_SIDE = 4
"""Smallest side, in pixels, that counts as a picture."""
_SCAN_CHUNK = 512
_DECODERS = min(8, os.cpu_count() or 1)


class _Source(Protocol):
    """Encoded images with a class each, in a fixed order."""

    class_names: tuple[str, ...]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    ignored: tuple[str, ...]

    def read(self, indices: Sequence[int]) -> list[bytes]: ...

    def name(self, index: int) -> str: ...


@dataclass(frozen=True)
class ImageData:
    """Images of named classes, read from their source as they are asked for.

    Iterating yields ``(class name, batches)`` one class at a time, where ``batches`` yields float tensors [n, 3, H, W] in [-1, 1];
    memory holds one batch. An index gives ``(image [3, H, W], label)``.

    Attributes:
        source: the source as it was named by the user.
        split: the split that was read, if the source has several.
        image_size: side H = W, in pixels, that images are delivered in (shorter side resized, centre kept).
        fingerprint: SHA-256 over class names and the contents of all images in order.
        sizes: how often each (width, height) occurs.
        skipped: unreadable images that were left out, each with its reason.
        ignored: files of the source that are no PNG, JPEG or WebP.
    """

    source: str
    split: str | None
    image_size: int
    fingerprint: str
    sizes: dict[tuple[int, int], int]
    skipped: tuple[str, ...]
    ignored: tuple[str, ...]
    _images: _Source
    _by_class: tuple[np.ndarray[Any, np.dtype[np.int64]], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; the position of a name is its label."""
        return self._images.class_names

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return {name: len(indices) for name, indices in zip(self.class_names, self._by_class, strict=True)}

    def __len__(self) -> int:
        return sum(len(indices) for indices in self._by_class)

    def __iter__(self) -> Iterator[tuple[str, Iterator[Tensor]]]:
        for name in self.class_names:
            yield name, self.batches(name)

    def batches(self, class_name: str, batch_size: int = 64) -> Iterator[Tensor]:
        """Yield the images of one class, in order, as tensors [n <= batch_size, 3, H, W] in [-1, 1]."""
        indices = self._by_class[self.class_names.index(class_name)]
        for start in range(0, len(indices), batch_size):
            yield self._decode(indices[start : start + batch_size])

    def gather(self, positions: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(images [n, 3, H, W] in [-1, 1], labels [n])`` at ``positions``; position 0 is the first image of the first class."""
        ends = np.cumsum([len(indices) for indices in self._by_class])
        wanted = np.asarray(positions)
        labels = np.searchsorted(ends, wanted, side="right")
        starts = ends - np.array([len(indices) for indices in self._by_class])
        indices = [int(self._by_class[label][position - starts[label]]) for label, position in zip(labels, wanted, strict=True)]
        return self._decode(indices), torch.from_numpy(labels.astype(np.int64))

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        if not 0 <= position < len(self):
            raise IndexError(position)
        images, labels = self.gather([position])
        return images[0], int(labels[0])

    def at_size(self, image_size: int) -> ImageData:
        """Return the same images, delivered at another size."""
        return replace(self, image_size=_checked_size(image_size))

    def _decode(self, indices: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
        blobs = self._images.read([int(index) for index in indices])
        with ThreadPoolExecutor(_DECODERS) as pool:
            pixels = list(pool.map(lambda blob: _to_pixels(open_upright(blob), self.image_size), blobs))
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def load_images(
    source: str | Path,
    *,
    split: str | None = None,
    image_size: int | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    image_column: str | None = None,
    label_column: str | None = None,
    progress: Progress = SILENT,
) -> ImageData:
    """Open a data set; every image is read and checked once before anything else is done with it.

    Args:
        source: a folder of class folders (PNG, JPEG, WebP), a folder of parquet files, a Hugging Face Hub id, or ``"digits"``.
        split: ``"train"``, ``"validation"``, ``"test"``, ...; by default ``"train"`` where the source has splits.
        image_size: side in pixels that images are delivered in; by default the median shorter side.
        on_bad_image: raise, or leave out and count, images that cannot be read.
        image_column: the column of images of a parquet or Hub source, where there are several.
        label_column: the column of classes of a parquet or Hub source, where there are several.
        progress: where to report the scan.

    Raises:
        DataError: the source is missing, empty, has fewer than two classes, or a class without images.
        UnreadableImages: some images are damaged, smaller than 4 pixels, or larger than :data:`MAX_PIXELS`.
        SettingsError: an argument is out of range.
    """
    if on_bad_image not in ("error", "skip"):
        raise SettingsError("Unknown --on_bad_image.", found=repr(on_bad_image), do="use error or skip.")
    name = str(source)
    if _is_hub_id(name):
        progress.say(f"no folder {name} here: asking the Hugging Face Hub")
    images, found_split = _open_source(name, split, image_column, label_column)
    if len(images.class_names) < 2:
        raise DataError(
            f"{name} has fewer than two classes.",
            found=f"classes: {listed(images.class_names) or 'none'}",
            do="give a folder that contains one folder of images per class.",
        )
    scan = _scan(images, name, progress)
    if scan.bad and on_bad_image == "error":
        raise UnreadableImages(name, [reason for _, reason in scan.bad])
    bad = np.array([index for index, _ in scan.bad], dtype=np.int64)
    by_class = []
    for label, class_name in enumerate(images.class_names):
        indices = np.flatnonzero(images.labels == label)
        by_class.append(np.setdiff1d(indices, bad, assume_unique=True))
        if len(by_class[-1]) == 0:
            raise DataError(
                f"Class {class_name!r} of {name} has no readable image.",
                found=f"{len(indices)} file(s), none readable",
                do="add images to it, or remove the empty class.",
            )
    return ImageData(
        source=name,
        split=found_split,
        image_size=_median_side(scan.sizes) if image_size is None else _checked_size(image_size),
        fingerprint=scan.fingerprint,
        sizes=dict(scan.sizes),
        skipped=tuple(reason for _, reason in scan.bad),
        ignored=images.ignored,
        _images=images,
        _by_class=tuple(by_class),
    )


def open_upright(blob: bytes) -> Image.Image:
    """Decode one encoded image to RGB: EXIF rotation applied, transparency laid on white, 16-bit grey scaled to 8 bits.

    Raises:
        ValueError: the image is damaged, too small or too large; the size is checked before pixels are decoded.
    """
    try:
        image = Image.open(io.BytesIO(blob))
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels, over the limit of {MAX_PIXELS:,}")
        if min(width, height) < MIN_SIDE:
            raise ValueError(f"{width} x {height} pixels, under {MIN_SIDE} a side")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16") or image.mode == "I":
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"too many pixels: {error}") from error
    except UnidentifiedImageError:
        raise ValueError("not a PNG, JPEG or WebP image") from None
    except (OSError, SyntaxError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"damaged: {error}") from error


def _to_pixels(image: Image.Image, image_size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return np.array(image)


@dataclass(frozen=True)
class _Scan:
    bad: list[tuple[int, str]]
    sizes: Counter[tuple[int, int]]
    fingerprint: str


def _scan(images: _Source, name: str, progress: Progress) -> _Scan:
    """Read and decode every image once; memory holds one chunk of encoded images."""
    bad: list[tuple[int, str]] = []
    sizes: Counter[tuple[int, int]] = Counter()
    digest = hashlib.sha256(repr(images.class_names).encode())
    digest.update(images.labels.tobytes())

    def check(blob: bytes) -> tuple[bytes, tuple[int, int] | str]:
        try:
            return hashlib.sha256(blob).digest(), open_upright(blob).size
        except ValueError as error:
            return b"", str(error)

    total = len(images.labels)
    with progress.bar(f"checking {name}", total) as bar, ThreadPoolExecutor(_DECODERS) as pool:
        for start in range(0, total, _SCAN_CHUNK):
            indices = range(start, min(start + _SCAN_CHUNK, total))
            for index, (content, size) in zip(indices, pool.map(check, images.read(indices)), strict=True):
                digest.update(content)
                if isinstance(size, str):
                    bad.append((index, f"{images.name(index)}: {size}"))
                else:
                    sizes[size] += 1
            bar.update(indices.stop)
    return _Scan(bad, sizes, digest.hexdigest())


def _median_side(sizes: Counter[tuple[int, int]]) -> int:
    sides = sorted((min(size), count) for size, count in sizes.items())
    half, seen = sum(count for _, count in sides) / 2, 0
    for side, count in sides:
        seen += count
        if seen >= half:
            return side
    raise AssertionError("a scan without readable images ends before")


def _checked_size(image_size: int) -> int:
    if image_size < MIN_SIDE:
        raise SettingsError("The image size is too small.", found=f"{image_size}", do=f"use at least {MIN_SIDE} pixels.")
    return image_size


def _open_source(name: str, split: str | None, image_column: str | None, label_column: str | None) -> tuple[_Source, str | None]:
    if name == "digits":
        return _Digits(split or "train"), split or "train"
    path = Path(name)
    if path.is_dir():
        if any(path.glob("*.parquet")) or any(path.glob("[!.]*/*.parquet")):
            return _open_table(str(path.resolve()), split, image_column, label_column)
        folder, found_split = _split_folder(path, split)
        return _ClassFolders(folder), found_split
    if path.exists():
        raise DataError(f"{name} is not a folder.", found="a file", do="give a folder that contains one folder of images per class.")
    if _is_hub_id(name):
        return _open_table(name, split, image_column, label_column)
    raise DataError(
        f"There is no folder {name}.", found=f"nothing at {path.absolute()}", do="check the path, or name a Hub id such as owner/name."
    )


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()


def _split_folder(path: Path, split: str | None) -> tuple[Path, str | None]:
    splits = [entry.name for entry in path.iterdir() if entry.is_dir() and entry.name in SPLIT_FOLDERS]
    if split is None:
        return (path / "train", "train") if "train" in splits else (path, None)
    if split not in splits:
        raise DataError(
            f"{path} has no split {split!r}.",
            found=f"splits: {listed(sorted(splits)) or 'none'}",
            do="leave --split out, or name one of these.",
        )
    return path / split, split


class _ClassFolders:
    """A folder of class folders; images may lie deeper inside a class folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        visible = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in visible if entry.is_dir()]
        loose = [entry.name for entry in visible if not entry.is_dir() and entry.suffix.lower() in IMAGE_SUFFIXES]
        if not folders:
            raise DataError(
                f"{root} has no class folders.",
                found=f"{len(loose)} image(s) directly in it" if loose else "no folder in it",
                do="put the images of each class into a folder named after the class.",
            )
        self.class_names = tuple(folder.name for folder in folders)
        self._files: list[str] = []
        ignored = list(loose)
        labels: list[int] = []
        for label, folder in enumerate(folders):
            for parent, directories, files in os.walk(folder, followlinks=True):
                directories.sort()
                for file in sorted(files):
                    relative = str((Path(parent) / file).relative_to(root))
                    if Path(file).suffix.lower() in IMAGE_SUFFIXES:
                        self._files.append(relative)
                        labels.append(label)
                    elif not file.startswith("."):
                        ignored.append(relative)
        self.labels = np.array(labels, dtype=np.int64)
        self.ignored = tuple(ignored)

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> bytes:
        try:
            return (self._root / self._files[index]).read_bytes()
        except OSError:
            return b""

    def name(self, index: int) -> str:
        return self._files[index]


class _Digits:
    """scikit-learn's 1,797 handwritten digits (8 x 8, UCI), split once: 1,197 train, 240 validation, 360 test."""

    def __init__(self, split: str) -> None:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        rest, test = train_test_split(np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0)
        train, validation = train_test_split(rest, test_size=240, stratify=digits.target[rest], random_state=0)
        parts = {"train": train, "validation": validation, "test": test}
        if split not in parts:
            raise DataError(f"digits has no split {split!r}.", found=f"splits: {listed(list(parts))}", do="name one of these.")
        self._rows = np.sort(parts[split])
        self._pixels = np.round(digits.images[self._rows] * (255 / 16)).astype(np.uint8)
        self.labels = digits.target[self._rows].astype(np.int64)
        self.class_names = tuple(str(name) for name in digits.target_names)
        self.ignored: tuple[str, ...] = ()

    def read(self, indices: Sequence[int]) -> list[bytes]:
        return [_png(self._pixels[index]) for index in indices]

    def name(self, index: int) -> str:
        return f"digits[{self._rows[index]}]"


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


class _Table:
    """A table of encoded images, read through Hugging Face ``datasets``."""

    def __init__(self, name: str, table: Any, image_column: str, label_column: str) -> None:
        import datasets

        self._name = name
        self._column = image_column
        labels = table.features[label_column]
        values = np.asarray(table[label_column])
        if isinstance(labels, datasets.ClassLabel):
            names = tuple(str(label) for label in labels.names)
            self.labels = values.astype(np.int64)
        else:
            distinct, inverse = np.unique(values, return_inverse=True)
            names = tuple(str(value) for value in distinct)
            self.labels = inverse.astype(np.int64)
        if len(set(names)) < len(names) or (self.labels < 0).any() or (self.labels >= len(names)).any():
            raise DataError(
                f"Column {label_column!r} of {name} does not give every image one named class.",
                found=f"{int((self.labels < 0).sum())} rows without a class, {len(names) - len(set(names))} repeated names",
                do="choose another --label_column or --split.",
            )
        self.class_names = names
        self.ignored: tuple[str, ...] = ()
        self._images = table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))

    def read(self, indices: Sequence[int]) -> list[bytes]:
        rows = self._images[indices if isinstance(indices, range) else list(indices)][self._column]
        return [self._content(row) for row in rows]

    def _content(self, row: dict[str, Any] | None) -> bytes:
        if row is None:
            return b""
        if row["bytes"] is not None:
            return bytes(row["bytes"])
        try:
            return Path(row["path"]).read_bytes()
        except OSError:
            return b""

    def name(self, index: int) -> str:
        return f"{self._name} row {index}"


def _open_table(name: str, split: str | None, image_column: str | None, label_column: str | None) -> tuple[_Source, str]:
    import datasets

    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # the Hub client raises from many unrelated trees
        raise DataError(
            f"{name} cannot be opened as a data set.",
            found=f"no folder of that name here; {type(error).__name__}: {error}",
            do="check the path or Hub id, and the network if it is a Hub id.",
        ) from error
    chosen = split or ("train" if "train" in splits else next(iter(splits)))
    if chosen not in splits:
        raise DataError(f"{name} has no split {chosen!r}.", found=f"splits: {listed(list(splits))}", do="name one of these with --split.")
    table = splits[chosen]
    kinds = {"image": (datasets.Image,), "label": (datasets.ClassLabel,)}
    image = _choose_column(name, table.features, image_column, kinds["image"], ("image", "img"), "--image_column")
    label = _choose_column(name, table.features, label_column, kinds["label"], ("label", "labels", "fine_label"), "--label_column")
    return _Table(name, table, image, label), chosen


def _choose_column(name: str, features: Any, given: str | None, kinds: tuple[type, ...], usual: tuple[str, ...], flag: str) -> str:
    fitting = [column for column, feature in features.items() if isinstance(feature, kinds)]
    candidates = [given] if given is not None else [column for column in usual if column in features][:1] or fitting
    if len(candidates) != 1 or candidates[0] not in features:
        raise DataError(
            f"{name}: the column to use is not clear.",
            found=f"columns: {listed(list(features))}; of the right kind: {listed(fitting) or 'none'}",
            do=f"name it with {flag}.",
        )
    return candidates[0]
