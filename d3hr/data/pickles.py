"""Recognises data sets that are Python pickles, which are never loaded, since that runs whatever they hold; says how to convert them."""

from pathlib import Path

from d3hr.data.headers import start_of
from d3hr.data.listing import files_below, holds_images
from d3hr.errors import DataError

_PROTOCOLS = tuple(bytes([0x80, version]) for version in range(2, 6))
"""First bytes of a pickle."""
_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_MOST = 1000
"""Most files that are looked at."""
_CONVERT = (
    "python -c \"import glob, pickle, numpy as n; r = lambda p: [pickle.load(open(f, 'rb'), encoding='bytes') for f in "
    "sorted(glob.glob('{folder}/' + p))]; g = lambda p, k: n.concatenate([n.array(b[k]) for b in r(p)]); "
    "i = lambda p: g(p, b'data').reshape(-1, 3, 32, 32); n.savez('{out}', train_images=i('{train}'), train_labels=g('{train}', {labels}), "
    "test_images=i('{test}'), test_labels=g('{test}', {labels}), class_names=r('{meta}')[0][{names}])\""
)
_CIFAR_10 = {"out": "cifar10.npz", "train": "data_batch_*", "test": "test_batch", "labels": "b'labels'", "meta": "batches.meta"}
_CIFAR_100 = {"out": "cifar100.npz", "train": "train", "test": "test", "labels": "b'fine_labels'", "meta": "meta"}


def refuse_pickles(source: Path) -> None:
    """Refuse a folder or archive without image files that holds CIFAR's pickles, or one file that is a pickle, and say how to convert them.

    Raises:
        DataError: it does.
    """
    if not source.is_dir():
        if is_pickle(source):
            _refuse(
                source, "a Python pickle", "save its images as files, or as arrays by numpy.savez('images.npz', images=..., labels=...)."
            )
        return
    if holds_images(source):
        return
    for _, file in zip(range(_MOST), files_below(source), strict=False):
        folder = file.parents[0]
        if file.name == "data_batch_1.bin":
            _refuse(source, "this looks like CIFAR-10's binary files", "use the Hub id uoft-cs/cifar10.")
        if not is_pickle(file):
            continue
        if file.name == "data_batch_1":
            line = _CONVERT.format(folder=folder, names="b'label_names'", **_CIFAR_10)
            _refuse(source, "this looks like CIFAR-10's Python pickles", _if_trusted(line, "cifar10"))
        if (folder / "meta").exists() and (folder / "train").exists():
            line = _CONVERT.format(folder=folder, names="b'fine_label_names'", **_CIFAR_100)
            _refuse(source, "this looks like CIFAR-100's Python pickles", _if_trusted(line, "cifar100"))


def is_pickle(file: Path) -> bool:
    """Return whether a file is a Python pickle, by its name or its first bytes."""
    return file.suffix.lower() in _SUFFIXES or (not file.suffix and start_of(file).startswith(_PROTOCOLS))


def _if_trusted(line: str, hub_id: str) -> str:
    return f"use the Hub id uoft-cs/{hub_id} or, if you trust the files, convert them (unpack an archive first): {line}"


def _refuse(source: Path, found: str, hint: str) -> None:
    raise DataError(f"{source} would have to be unpickled, which can run any program.", found=found, hint=hint)
