"""Opens a data set of real images: finds its classes, and reads and checks every image once before anything else is done with it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from d3hr.data.codec import Fit, require_side
from d3hr.data.contents import Contents
from d3hr.data.dataset import ImageData
from d3hr.data.in_memory import name_in_memory
from d3hr.data.scan import median_side, require_every_class, scan
from d3hr.data.scan_cache import ScanCache
from d3hr.data.sources import Request, is_hub_id, open_source, require_classes
from d3hr.errors import SettingsError, UnreadableImages
from d3hr.progress import SILENT, Progress

_HEADERS = "headers were read, pictures not decoded: damaged ones and duplicates are not looked for (--verify decodes every image)"


def load_images(
    source: str | Path | Any,
    *,
    split: str | None = None,
    image_size: int | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    fit: Fit = "crop",
    keep_duplicates: bool = False,
    keep_similar_names: bool = False,
    hold_out: float = 0.0,
    image_column: str | None = None,
    label_column: str | None = None,
    config: str | None = None,
    label_pattern: str | None = None,
    class_names: str | Path | Sequence[str] | None = None,
    verify: bool | None = True,
    progress: Progress = SILENT,
) -> ImageData:
    """Open a data set; every image is read and checked once before anything else is done with it.

    What is found in files is kept (:mod:`~d3hr.data.scan_cache`): one that has not changed since is not read again.

    Args:
        source: a folder of class folders, or of images with a table of their labels; a zip or tar file of such a folder; WebDataset
            shards; parquet files, or a folder of ``save_to_disk``; an ``.npz`` file, or idx files; a Hugging Face Hub id, or
            ``"digits"``. Or images in memory: a ``datasets.Dataset`` or ``DatasetDict``, a torch ``Dataset`` of (image, label), or a pair
            (images, labels) of an array [N, H, W] or [N, H, W, 3], or of a list of Pillow images, paths or arrays. All cases:
            ``docs/reading.md``.
        split: ``"train"``, ``"validation"``, ``"test"``, ...; by default ``"train"`` where the source has splits.
        image_size: side in pixels that images are delivered in; by default the median shorter side.
        on_bad_image: raise, or leave out and count, images that cannot be read.
        fit: for pictures that are not square: ``"crop"`` keeps the centre, ``"pad"`` adds black, ``"stretch"`` distorts.
        keep_duplicates: keep exact duplicates of an image within its class, which are left out by default, so that it counts once.
        keep_similar_names: accept classes whose names differ only in case, spaces or Unicode form, as classes of their own.
        hold_out: share of each class's images to leave out, the same ones each time (:meth:`~d3hr.data.dataset.ImageData.divided`).
        image_column: the column of images of a table, or of their files, where it is not clear.
        label_column: the column of classes of a table, where it is not clear.
        config: the configuration of a Hub source that has several, such as ``full_size``.
        label_pattern: a regular expression whose group ``label`` finds the class in the path of each image, relative to the source.
        class_names: a file that gives the classes other names: YAML or JSON "label: name", or one name per line for 0, 1, ... in a .txt.
            Or a list of the names of 0, 1, ....
        verify: decode every image; False reads headers alone, which is enough to count images and sizes, and finds neither duplicates nor
            damaged pixels; None decodes unless over 10,000 images are not known from before.
        progress: where to report the scan.

    Raises:
        DataError: the source is missing, empty, has fewer than two classes, a class without images, or classes of similar names.
        UnreadableImages: some images are damaged, smaller than 4 pixels, or larger than :data:`~d3hr.data.headers.MAX_PIXELS`.
        SettingsError: an argument is out of range.
    """
    for flag, value, choices in (("--on-bad-image", on_bad_image, ("error", "skip")), ("--fit", fit, get_args(Fit))):
        if value not in choices:
            raise SettingsError(f"Unknown {flag}.", found=repr(value), hint=f"use {' or '.join(choices)}.")
    in_memory = not isinstance(source, str | Path)
    name = name_in_memory(source) if in_memory else str(source)
    if not in_memory and is_hub_id(name):
        progress.say(f"no folder {name} here: asking the Hugging Face Hub")
    request = Request(split, image_column, label_column, config, label_pattern, class_names)
    images, found_split, splits, notes = open_source(name, request, source if in_memory else None)
    require_classes(images, name, keep_similar_names)
    found = scan(images, name, progress, ScanCache.of(name, found_split).opened(), verify)
    unreadable = {images.name(index): reason for index, reason in found.bad.items()}
    if unreadable and on_bad_image == "error":
        raise UnreadableImages(name, unreadable)
    order = np.argsort(images.labels, kind="stable")
    order = order[_outside(order, [*found.bad])]
    require_every_class(images, name, order, found.bad)
    contents = Contents.of(found.digests, images.labels, order) if found.verified else Contents.not_looked_for()
    unusual: dict[str, str] = {"fit": fit} if fit != "crop" else {}
    if len(contents.repeats) and not keep_duplicates:
        order = order[_outside(order, contents.repeats)]
        unusual["duplicates"] = "left out"
    sizes = found.sizes(order)
    data = ImageData(
        source=name,
        split=found_split,
        image_size=median_side(sizes) if image_size is None else require_side(image_size),
        fingerprint=hashlib.sha256(f"{found.fingerprint} {unusual}".encode()).hexdigest() if unusual else found.fingerprint,
        sizes=sizes,
        skipped=tuple(f"{file}: {reason}" for file, reason in unreadable.items()),
        ignored=images.ignored,
        splits=splits,
        notes=(*notes, *([] if found.verified else [_HEADERS]), *found.remarks(images), *contents.remarks(images, kept=keep_duplicates)),
        fit=fit,
        contents=contents,
        bits=found.bits,
        in_memory=in_memory,
        _images=images,
        _order=order,
    )
    return data.divided(hold_out)[0] if hold_out else data


def _outside(order: NDArray[np.int64], left_out: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of the indices of images are not ``left_out``."""
    inside = np.ones(int(order.max(initial=-1)) + 1, dtype=bool)
    inside[np.asarray(left_out, dtype=np.int64)] = False
    return inside[order]
