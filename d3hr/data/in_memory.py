"""Images that a program holds already: data sets of Hugging Face and PyTorch, arrays, and lists of pictures or files, with labels.

Their contents, and so the fingerprint, are those of the same images on the disk: a table of Hugging Face gives the bytes in it, a list of
files these files, arrays what an ``.npz`` file of them gives, and a Pillow image the PNG file that Pillow writes.

Legend: N images, H, W image size in pixels, C channels.
"""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from d3hr.data.arrays import ArrayImages, flat_labels, numbered, pixels_of, tiff_of
from d3hr.data.codec import png_of, upright
from d3hr.data.headers import NoContent, content_of
from d3hr.data.splits import chosen_split
from d3hr.data.tables import Table, choose_table
from d3hr.errors import DataError, SettingsError, printable

_KINDS = "a path, a datasets.Dataset or DatasetDict, a torch Dataset of (image, label), or a pair (images, labels)"
_READ_TWICE = 8
"""How many images of a torch data set are read twice, to find random transforms."""
_NOT_IN_PNG = ("CMYK", "YCbCr", "HSV", "LAB")
"""Modes of Pillow that a PNG file does not have."""
_Array = np.ndarray[Any, Any]


class _Sequence(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class InMemory(NamedTuple):
    """What :func:`open_in_memory` found; the fields are those of :class:`~d3hr.data.sources.Opened`."""

    images: "Table | ArrayImages | Examples"
    split: str | None = None
    splits: tuple[str, ...] = ()


class Examples:
    """Images that are given one by one, with a label each; each is encoded when it is read.

    Args:
        name: what they are called in messages.
        images: sequence of N images: Pillow images, paths of files, or arrays or tensors, [H, W], [H, W, C] or [C, H, W], C = 1, 3 or 4,
            of whole numbers from 0 to 255 or floats from 0 to 1.
        labels: [N], numbers or names.
        class_names: the names of 0, 1, ..., in order; by default the numbers.

    Raises:
        DataError: the labels are not one per image, or do not fit the names.
    """

    def __init__(self, name: str, images: _Sequence, labels: _Array, class_names: Sequence[str] | None = None) -> None:
        self._name, self._images = name, images
        self.class_names, self.labels = numbered(name, flat_labels(name, labels, len(images)), class_names)
        self.ignored: tuple[str, ...] = ()

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """Return the encoded images at ``indices``; one that cannot be read is empty, with the reason."""
        return [self._encoded(int(index)) for index in indices]

    def name(self, index: int) -> str:
        """Return the name of an image for messages: its path, or its position."""
        image = self._images[index] if isinstance(self._images, list) else None
        return printable(str(image)) if isinstance(image, str | Path) else f"{self._name}[{index}]"

    def _encoded(self, index: int) -> bytes:
        try:
            image = self._images[index]
            if isinstance(image, str | Path):
                return content_of(Path(image))
            if isinstance(image, Image.Image):
                return png_of(image.convert("RGB") if image.mode in _NOT_IN_PNG else upright(image))
            if isinstance(image, np.ndarray | Tensor):
                return tiff_of(_pixels(self._name, image, batch=False)[0])
        except DataError as error:
            return NoContent(f"{error.found}: {error.hint.removesuffix('.')}")
        except Exception as error:  # of the user's own data set, and of Pillow
            return NoContent(f"{type(error).__name__}: {error}")
        return NoContent(f"{type(image).__name__}, where a Pillow image, a path, an array or a tensor is needed")


class _Images:
    """The images of a torch data set of (image, label)."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index][0]


def name_in_memory(given: object) -> str:
    """Return what images that are no path are called in messages and manifests, such as ``datasets.Dataset`` or ``arrays``.

    Raises:
        SettingsError: they are none of the kinds that are read.
    """
    tables = sys.modules.get("datasets")  # what nobody has imported, nobody has an instance of
    if tables is not None and isinstance(given, tables.Dataset | tables.DatasetDict):
        return f"datasets.{type(given).__name__}"
    if isinstance(given, tuple) and len(given) == 2:
        return "arrays" if isinstance(given[0], np.ndarray | Tensor) else "lists"
    if isinstance(given, Dataset) and hasattr(given, "__len__"):
        inner = _innermost(given)
        return f"{type(inner).__module__}.{type(inner).__qualname__}".removeprefix("__main__.")
    hint = f"give {_KINDS}."
    if isinstance(given, DataLoader):
        hint = "give its data set: loader.dataset."
    elif "Iterable" in type(given).__name__ or isinstance(given, Dataset):
        hint = "give a data set that has a length and is read by position: in datasets, load it without streaming."
    raise SettingsError("source must be a place, or images with labels.", found=f"{type(given).__name__} {given!r:.60}", hint=hint)


def open_in_memory(
    name: str, given: Any, split: str | None, image_column: str | None, label_column: str | None, class_names: Sequence[str] | None
) -> InMemory:
    """Open images of a kind that :func:`name_in_memory` accepts.

    Args:
        name: what they are called in messages.
        given: the images.
        split: the split of a ``DatasetDict``.
        image_column: the column of images of a table.
        label_column: the column of its labels.
        class_names: the names of the labels 0, 1, ..., in order.

    Raises:
        DataError: they are empty, have no labels of that number, other names or splits, or are not the same each time.
    """
    if name.startswith("datasets.Dataset"):
        return _table(name, given, split, image_column, label_column, class_names)
    if split is not None:
        chosen_split(name, (), split)
    if isinstance(given, tuple):
        images, labels = given
        if isinstance(images, np.ndarray | Tensor) and images.ndim > 1:
            _require_some(name, len(images))
            return InMemory(ArrayImages(name, _pixels(name, images, batch=True), _values(name, labels), class_names))
        listed = images if isinstance(images, list) else _as_list(name, images)
        _require_some(name, len(listed))
        return InMemory(Examples(name, listed, _values(name, labels), class_names))
    _require_some(name, len(given))
    return InMemory(_torch_images(name, given, class_names))


def _table(
    name: str, given: Any, split: str | None, image_column: str | None, label_column: str | None, class_names: Sequence[str] | None
) -> InMemory:
    """Open a table of Hugging Face; a file that it names is read wherever it lies, as by ``datasets`` itself."""
    splits = dict(given) if isinstance(given, dict) else {str(given.split or "train"): given}
    plain = {key: table.with_format(None) for key, table in splits.items()}
    table, chosen, every = choose_table(name, plain, split, image_column, label_column, roots=None)
    _require_some(name, len(table.labels))
    if class_names is not None:
        if len(set(class_names)) < len(class_names) or len(class_names) != len(table.class_names):
            raise DataError(
                f"The class names do not fit the labels of {name}.",
                found=f"{len(set(class_names))} different names for the classes {', '.join(table.class_names)}",
                hint="give one name per class, in this order.",
            )
        table.class_names = tuple(class_names)
    return InMemory(table, chosen, every)


def _torch_images(name: str, given: Any, class_names: Sequence[str] | None) -> Examples:
    try:
        first = given[0]
    except Exception:  # of the user's own data set; reading its image names the reason
        first = (None, None)
    if not isinstance(first, tuple | list) or len(first) != 2:
        raise DataError(
            f"{name} does not give pairs (image, label).",
            found=f"{type(first).__name__}{f' of {len(first)}' if hasattr(first, '__len__') else ''}",
            hint="give a torch Dataset whose items are such pairs.",
        )
    named = _classes(given) if class_names is None else tuple(class_names)
    examples = Examples(name, _Images(given), _values(name, _labels(name, given)), named)
    some = range(min(_READ_TWICE, len(given)))
    if examples.read(some) != examples.read(some):
        raise DataError(
            f"{name} gives other images each time it is read.",
            found="random transforms",
            hint="leave them out here: students are trained with augmentation of their own.",
        )
    return examples


def _labels(name: str, dataset: Any) -> list[Any]:
    """Return the labels of a torch data set: those in its ``targets`` if these are what its items have, else those of its items."""
    base: Any = dataset
    indices: Sequence[int] = range(len(dataset))
    while isinstance(base, Subset):
        base, indices = base.dataset, [base.indices[index] for index in indices]
    targets = getattr(base, "targets", None)
    if targets is not None and getattr(base, "target_transform", None) is None and len(targets) == len(base):
        labels = [targets[index] for index in indices]
        if all(_agrees(dataset, index, label) for index, label in enumerate(islice(labels, _READ_TWICE))):
            return labels
    try:
        return [dataset[index][1] for index in range(len(dataset))]
    except Exception as error:  # of the user's own data set
        raise DataError(f"{name} cannot be read to its end.", found=f"{type(error).__name__}: {error}", hint="repair it.") from error


def _agrees(dataset: Any, index: int, label: Any) -> bool:
    """Return whether an item has a label; one that cannot be read may have it."""
    try:
        return bool(_plain(dataset[index][1]) == _plain(label))
    except Exception:  # of the user's own data set; reading its image names the reason
        return True


def _classes(dataset: Any) -> tuple[str, ...] | None:
    """Return the names of the classes that a torch data set has, as those of torchvision do; ImageNet's are tuples of synonyms."""
    classes = getattr(_innermost(dataset), "classes", None)
    if not isinstance(classes, list | tuple):
        return None
    names = tuple(", ".join(each) if isinstance(each, tuple) else each for each in classes)
    return names if names and all(isinstance(each, str) for each in names) else None


def _innermost(dataset: Any) -> Any:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _pixels(name: str, images: _Array | Tensor, *, batch: bool) -> _Array:
    """Return pixels [N, H, W] or [N, H, W, C] of images, or of one as N = 1; channels come first in tensors, where that may be."""
    if isinstance(images, Tensor):
        if images.ndim == 3 + batch and images.shape[-3] in (1, 3, 4):
            images = images.movedim(-3, -1)
        images = (images.float() if images.is_floating_point() else images).detach().cpu()
    array: _Array = np.asarray(images)
    if array.dtype.kind == "f" and array.size:
        if not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"{name} holds floats whose brightness is not known.",
                found="floats outside 0 to 1",
                hint="give images as they are before Normalize: uint8, or floats from 0 (black) to 1 (white).",
            )
        array = np.rint(array * 255).astype(np.uint8)
    return pixels_of(name, array if batch else array[None])


def _values(name: str, labels: Any) -> _Array:
    """Return labels as an array of whole numbers or of text."""
    if isinstance(labels, Tensor):
        return np.asarray(labels.detach().cpu())
    listed = [_plain(label) for label in (labels if isinstance(labels, list) else _as_list(name, labels))]
    if all(isinstance(label, str) for label in listed):
        return np.array(listed, dtype=np.str_)
    try:
        return np.array(listed)
    except ValueError as error:
        raise DataError(f"The labels of {name} are not one per image.", found=str(error), hint="give one number or name each.") from error


def _plain(label: Any) -> Any:
    """Return the number or text that an array or tensor of one value holds."""
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label


def _as_list(name: str, given: Any) -> list[Any]:
    if hasattr(given, "tolist"):  # of NumPy, pandas and others
        return list(given.tolist())
    if isinstance(given, Sequence) and not isinstance(given, str):
        return list(given)
    raise DataError(f"{name} are no images with labels.", found=f"{type(given).__name__} {given!r:.60}", hint=f"give {_KINDS}.")


def _require_some(name: str, count: int) -> None:
    if count == 0:
        raise DataError(f"{name} holds no images.", found="an empty one", hint="give some of at least two classes.")
