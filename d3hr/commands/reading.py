"""How commands read the image sources that a person names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from d3hr.data import ImageData, load_images
from d3hr.errors import DataError, PriorError
from d3hr.progress import OnTerminal


@dataclass(frozen=True)
class Reading:
    """How images are read: flags of every command that reads them.

    Args:
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
        data_config: configuration of a Hub source that has several, such as full_size
    """

    on_bad_image: Literal["error", "skip"] = "error"
    image_column: str | None = None
    label_column: str | None = None
    data_config: str | None = None

    def load(self, source: str, split: str | None, progress: OnTerminal) -> ImageData:
        """Open a source and report what is in it."""
        images = load_images(
            source,
            split=split,
            on_bad_image=self.on_bad_image,
            image_column=self.image_column,
            label_column=self.label_column,
            config=self.data_config,
            progress=progress,
        )
        progress.say(_about(images))
        return images


READING = Reading()


def warn_of_leak(images: ImageData, test: ImageData, progress: OnTerminal) -> None:
    """Say so where the images to test on are those that were trained on or drawn from."""
    if images.fingerprint == test.fingerprint:
        progress.say(
            "warning: the test images are the training images, so no accuracy here tells of new ones: give --test_split or other images"
        )


@contextmanager
def or_else(flag: str, what: str) -> Iterator[None]:
    """Tell, where something named in a manifest is no longer there, which flag gives its new place."""
    try:
        yield
    except (DataError, PriorError) as error:
        kind = PriorError if isinstance(error, PriorError) else DataError
        raise kind(what, found=error.what, do=f"tell where it is with {flag}.") from error


def _about(images: ImageData) -> str:
    split = f", split {images.split}" if images.split else ""
    sizes = sorted(images.sizes)
    extent = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes from {min(sizes)} to {max(sizes)}"
    lines = [
        f"{images.source}{split}: {len(images):,} images of {len(images.class_names)} classes, {extent}, read at {images.image_size} px"
    ]
    lines += [f"left out, unreadable: {reason}" for reason in images.skipped]
    if images.ignored:
        lines.append(f"ignored, no PNG, JPEG or WebP: {len(images.ignored)} file(s), such as {images.ignored[0]}")
    return "\n".join(lines)
