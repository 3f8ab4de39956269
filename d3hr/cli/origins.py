"""Finds again what a set was made from: the real images and the prior that its manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from d3hr.cli.options import Loading, Precision, Reading
from d3hr.errors import DataError, PriorError

if TYPE_CHECKING:
    from d3hr.data.dataset import ImageData
    from d3hr.prior.model import Prior
    from d3hr.progress import Progress
    from d3hr.sets.image_set import ImageSet
    from d3hr.sets.manifest import Manifest


@contextmanager
def or_else(flag: str, what: str) -> Iterator[None]:
    """Tell, where something named in a manifest is no longer there, which flag gives its new place."""
    try:
        yield
    except (DataError, PriorError) as error:
        kind = PriorError if isinstance(error, PriorError) else DataError
        raise kind(what, found=error.what, hint=f"tell where it is with {flag}.") from error


def prior_named(distilled: str, manifest: Manifest | None, prior: str | None) -> str | None:
    """Return the place of the prior called ``prior``, or by default of the one a set was made with; None where nothing names one."""
    source = manifest.prior.source if manifest else None
    return prior or (located(source, distilled) if source else None)


def located(source: str, distilled: str) -> str:
    """Return the path of what the manifest of a set names: as it is seen from here, or else from a folder that the set is in.

    A manifest keeps paths as they were given, so that the same command makes the same bytes everywhere.
    """
    if Path(source).exists():
        return source
    places = (parent / source for parent in Path(distilled).resolve().parents)
    return next((str(place) for place in places if place.exists()), source)


def data_of_set(
    distilled: str, subject: ImageSet, data: str | None, split: str | None, reading: Reading, progress: Progress
) -> ImageData | None:
    """Open the real images called ``data``, or by default those that a set was made from; None where nothing says which these are."""
    record = subject.manifest.data if subject.manifest else None
    if data is not None:
        return reading.load(data, split, progress, record=record)
    if record is None or record.source is None:
        return None
    if record.in_memory:
        progress.say(
            f"the set was made from {record.source}, in the memory of a Python program: to use these images here, save them as files, "
            "one folder per class, and give their place with --data"
        )
        return None
    with or_else("--data", "The images that the set was made from are needed."):
        images = reading.load(located(record.source, distilled), split or record.split, progress, record=record)
    if images.fingerprint != record.fingerprint:
        progress.say(f"warning: {images.source} is not what the set was made from: images have changed, come, or gone since")
    return images


def prior_of_set(manifest: Manifest, name: str, *, progress: Progress, device: str | None = None) -> Prior:
    """Load the prior called ``name`` in the precision, with the autoencoder, prompts and adapter, that a distilled set was made with."""
    from d3hr.prior.model import PRECISIONS

    made = manifest.prior
    precision = made.precision or "fp32"
    if precision not in PRECISIONS:
        raise PriorError(
            "The precision that the set was made in is unknown.", found=repr(precision), hint=f"use one of {', '.join(PRECISIONS)}."
        )
    loading = Loading(
        autoencoder=made.autoencoder,
        prompt=made.prompt,
        negative_prompt=made.negative_prompt,
        lora=made.lora,
        precision=cast(Precision, precision),
        device=device,
    )
    return loading.load(name, progress)
