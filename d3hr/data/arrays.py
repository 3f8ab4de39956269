"""Images in arrays: ``.npz`` files of NumPy, as of MedMNIST, and the idx files of MNIST. Pickled objects in them are never loaded.

Legend: N images, H = W image size in pixels, C channels.
"""

import gzip
import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from d3hr.data.folders import in_order
from d3hr.data.formats import START
from d3hr.data.splits import chosen_split, split_kinds
from d3hr.errors import DataError, listed, printable

_IMAGES = ("images", "image", "imgs", "img", "x", "data")
_LABELS = ("labels", "label", "y", "targets", "target", "fine_labels")
_CLASSES = ("class_names", "label_names", "classes", "names")
"""Usual names of arrays, without the name of the split."""
_UBYTE = 8
"""The code of unsigned bytes in idx files."""
_Array = np.ndarray[Any, Any]


class ArrayImages:
    """Images of one array, with a label each; they are delivered as uncompressed TIFF.

    Args:
        name: what they are called in messages.
        images: [N, H, W], [N, H, W, C] or [N, C, H, W], C = 1, 3 or 4; whole numbers from 0 to 255, or to 65,535 in grey.
        labels: [N], [N, 1], or one-hot [N, classes]; numbers or names.
        class_names: the name of each number; by default the number.

    Raises:
        DataError: they are of other shapes or kinds.
    """

    def __init__(self, name: str, images: _Array, labels: _Array, class_names: Sequence[str] | None = None) -> None:
        self._name = name
        self._pixels = pixels_of(name, images)
        self.class_names, self.labels = numbered(name, flat_labels(name, labels, len(images)), class_names)
        self.ignored: tuple[str, ...] = ()

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the images at ``indices`` as TIFF files."""
        return [tiff_of(self._pixels[index]) for index in indices]

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its position in the array."""
        return f"{self._name}[{index}]"


def open_npz(path: Path, split: str | None) -> tuple[ArrayImages, str | None, tuple[str, ...]]:
    """Return the images of an ``.npz`` file, the split that was read, and all splits.

    Its arrays are called ``train_images`` and ``train_labels``, ``x_train`` and ``y_train``, or ``images`` and ``labels``.

    Raises:
        DataError: its arrays have other names, hold Python objects, or are larger than the memory.
    """
    try:
        _require_room(path)
        with np.load(path, allow_pickle=False) as arrays:
            pairs, names = _pairs(arrays.files)
            if not pairs:
                raise DataError(
                    f"{path} has no arrays of images and labels.",
                    found=f"arrays: {listed(arrays.files)}",
                    hint="call them train_images and train_labels, or images and labels.",
                )
            splits = tuple(sorted(name for name in pairs if name))
            chosen = chosen_split(path, splits, split) if splits or split is not None else None
            image, label = pairs[chosen or ""]
            classes = [value.decode() if isinstance(value, bytes) else str(value) for value in arrays[names].tolist()] if names else None
            return ArrayImages(f"{path.name} {image}", arrays[image], arrays[label], classes), chosen, splits
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError) as error:
        what = f"{path} holds Python objects." if "allow_pickle" in str(error) else f"{path} is damaged."
        raise DataError(what, found=printable(str(error)), hint="save the images again, as an array of uint8.") from error


def idx_files(folder: Path) -> list[Path]:
    """Return the idx files of images in a folder, or where torchvision puts them below it; the plain one where there is a ``.gz`` too."""
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "FashionMNIST" / "raw"):
        files = sorted(file for file in place.iterdir() if "idx3-ubyte" in file.name) if place.is_dir() else []
        if files:
            return [file for file in files if not (file.suffix == ".gz" and file.with_suffix("") in files)]
    return []


def open_idx(files: Sequence[Path], split: str | None) -> tuple[ArrayImages, str | None, tuple[str, ...]]:
    """Return the images of one of several idx files of images, the split that was read, and all splits; the labels lie next to them.

    Raises:
        DataError: the files are damaged, have no labels next to them, or are several of one split.
    """
    kinds = {file: re.sub("t10k", "test", file.name) for file in files}
    split_of = {file: split_kinds(re.split(r"[-.]", name)) for file, name in kinds.items()}
    names = {file: next(iter(found.values()), "") for file, found in split_of.items()}
    splits = tuple(sorted(set(names.values()) - {""}))
    chosen = chosen_split(files[0].parent, splits, split) if len(files) > 1 or split is not None else next(iter(splits), None)
    fitting = [file for file, name in names.items() if not chosen or name == chosen]
    if len(fitting) != 1:
        raise DataError(
            f"{files[0].parent} holds several idx files of images.",
            found=listed([file.name for file in fitting]),
            hint="give the path of one of them.",
        )
    images = fitting[0]
    labels = images.with_name(images.name.replace("idx3", "idx1").replace("images", "labels"))
    other = labels.with_suffix("") if labels.suffix == ".gz" else labels.with_name(labels.name + ".gz")
    return ArrayImages(images.name, _idx(images), _idx(labels if labels.exists() else other)), chosen, splits


def is_idx(path: Path) -> bool:
    """Return whether a file is an idx file of images, compressed or not."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as unpacked:
                start = unpacked.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return start[:4] == bytes([0, 0, _UBYTE, 3])


def _idx(path: Path) -> _Array:
    """Return the array of an idx file, which is as long as its header says."""
    if not path.is_file():
        raise DataError(f"There is no {path}.", found="images without their labels", hint="put the file of labels next to them.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if magic[:3] != bytes([0, 0, _UBYTE]):
                raise ValueError("no idx file of unsigned bytes")
            shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(magic[3]))
            _require_memory(path, math.prod(shape))
            content = file.read(math.prod(shape) + 1)
        if len(content) != math.prod(shape):
            raise ValueError(f"{len(content):,} bytes of pixels, where its header says {math.prod(shape):,}")
    except (ValueError, EOFError, IndexError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged.", found=str(error), hint="fetch it again.") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def _require_room(path: Path) -> None:
    """Refuse an ``.npz`` file whose arrays, as their headers say, do not fit into memory, before any is loaded."""
    with zipfile.ZipFile(path) as archive:
        _require_memory(path, sum(info.file_size for info in archive.infolist()))


def _require_memory(path: Path, size: int) -> None:
    free = psutil.virtual_memory().available
    if size > free:
        raise DataError(f"{path} does not fit into memory.", found=f"{size:,} bytes, {free:,} free", hint="save the images as files.")


def _pairs(keys: Sequence[str]) -> tuple[Mapping[str, tuple[str, str]], str | None]:
    """Return split (empty if there are none) -> the arrays of its images and labels, and the array of names of classes."""
    found: dict[str, dict[str, str]] = {}
    names = None
    for key in keys:
        if key.lower() in _CLASSES:
            names = key
            continue
        words = key.lower().split("_")
        split = next(iter(split_kinds(words)), "")
        rest = "_".join(word for word in words if word != split)
        kind = "images" if rest in _IMAGES else "labels" if rest in _LABELS else ""
        if kind:
            found.setdefault(split, {}).setdefault(kind, key)
    return {split: (pair["images"], pair["labels"]) for split, pair in found.items() if len(pair) == 2}, names


def pixels_of(name: str, images: _Array) -> _Array:
    """Return images as uint8 or uint16 [N, H, W] or [N, H, W, C], C = 3 or 4."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3, 4) and images.shape[1] in (1, 3, 4):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (3, 4)) or 0 in images.shape:
        raise DataError(
            f"{name} is no array of images.",
            found=f"shape {images.shape}",
            hint="give [images, height, width] or [images, height, width, 3].",
        )
    if images.dtype.kind not in "iub" or images.min() < 0 or images.max() > (65535 if images.ndim == 3 else 255):
        raise DataError(
            f"{name} holds numbers whose brightness is not known.",
            found=f"{images.dtype} from {images.min()} to {images.max()}",
            hint="save them as uint8, from 0 (black) to 255 (white).",
        )
    if images.dtype.kind == "b":
        return images.astype(np.uint8) * np.uint8(255)
    return images.astype(np.uint16 if images.dtype == np.uint16 or images.max() > 255 else np.uint8)


def flat_labels(name: str, labels: _Array, count: int) -> _Array:
    """Return labels [N] of labels [N], [N, 1] or one-hot [N, classes]."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "iub" and (labels.astype(bool).sum(1) == 1).all() and labels.max() == 1:
        labels = labels.argmax(1)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        several = labels.ndim == 2 and len(labels) == count
        raise DataError(
            f"The labels of {name} are not one per image.",
            found=f"{'several labels per image, ' if several else ''}{labels.dtype} of shape {labels.shape}, {count} images",
            hint="give one number or name per image.",
        )
    return labels


def numbered(name: str, values: _Array, class_names: Sequence[str] | None) -> tuple[tuple[str, ...], _Array]:
    """Return the names of the classes, and the labels int64 [N], of ``values`` [N], numbers or names.

    Args:
        name: what the images are called in messages.
        values: whole numbers, or names.
        class_names: the names of 0, 1, ..., in order, or all the names there may be; by default the values name the classes.

    Raises:
        DataError: the values do not fit the names, or two of these are the same.
    """
    texts = [str(value) for value in values.tolist()]
    names = in_order(set(texts)) if class_names is None else tuple(class_names)
    label_of = {name: label for label, name in enumerate(names)}
    if class_names is not None and values.dtype.kind in "iu":
        label_of = {str(label): label for label in range(len(names))}
    if len(set(names)) < len(names) or (unknown := sorted(set(texts) - label_of.keys())):
        raise DataError(
            f"The labels of {name} do not fit its names of classes.",
            found="a name that occurs twice" if len(set(names)) < len(names) else f"labels such as {unknown[0]}, {len(names)} names",
            hint="give one name per label, from 0.",
        )
    return names, np.array([label_of[text] for text in texts], dtype=np.int64)


def tiff_of(pixels: _Array) -> bytes:
    """Return pixels [H, W] or [H, W, C] as an uncompressed TIFF file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "tiff")
    return buffer.getvalue()
