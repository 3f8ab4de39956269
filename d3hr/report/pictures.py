"""Images of a set as data URIs, as many as fit on one page.

The rule: at most ten images of each of the first hundred classes, and of these as many as fit the page's budget of bytes: fewer of each
class first, then fewer classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from d3hr.data.codec import open_upright, png_of, png_of_pixels
from d3hr.errors import ResultsError
from d3hr.formatting import data_uri
from d3hr.sets.image_set import ImageSet

MAX_IMAGES = 10
MAX_CLASSES = 100
MAX_PAIRS = 5
"""Pairs of each class."""
SHEET_BYTES = 3_000_000
"""Encoded images of the contact sheet; base64 adds a third."""
NEAREST_BYTES = 2_500_000
"""Encoded images of the pairs."""


@dataclass(frozen=True)
class Picture:
    """An image for the page, as a data URI; ``index`` is its position within its class."""

    index: int
    uri: str


@dataclass(frozen=True)
class Pair:
    """A distilled image and the real image nearest to it, as data URIs."""

    index: int
    distilled: str
    real: str


@dataclass(frozen=True)
class Sheet:
    """The images of a set that a page shows, class by class; ``counts`` also has the classes that are not shown.

    The height and width of an image is ``side``, in pixels.
    """

    side: int
    classes: dict[str, list[Picture]]
    counts: dict[str, int]

    @property
    def rule(self) -> str:
        """What is shown, in words; empty if everything is."""
        shown = max((len(pictures) for pictures in self.classes.values()), default=0)
        parts = []
        if any(len(pictures) < self.counts[name] for name, pictures in self.classes.items()):
            parts.append(f"the first {shown} images of each class" if shown > 1 else "the first image of each class")
        if len(self.classes) < len(self.counts):
            parts.append(f"the first {len(self.classes):,} of {len(self.counts):,} classes")
        return f"Shown: {', '.join(parts)}, so that the page stays small." if parts else ""


def sheet_of(images: ImageSet, *, budget: int = SHEET_BYTES) -> Sheet:
    """Return the first images of each class within a budget of bytes; memory holds one class. A set of statistics alone has none."""
    counts = dict(images.counts)
    names = [name for name, count in counts.items() if count][:MAX_CLASSES]
    if not names:
        return Sheet(0, {}, counts)
    first = {name: png_of_pixels(images.of_class(name, 1)[0]) for name in names}
    mean = sum(map(len, first.values())) / len(first)
    each = max(1, min(MAX_IMAGES, int(budget / (mean * len(names)))))
    names = names[: max(1, int(budget / (mean * each)))]
    classes = {
        name: [Picture(index, data_uri(png_of_pixels(image))) for index, image in enumerate(images.of_class(name, each))]
        if each > 1
        else [Picture(0, data_uri(first[name]))]
        for name in names
    }
    return Sheet(images.image_size, classes, counts)


def nearest_pairs(sheet: Sheet, folder: Path, folders: Mapping[str, str], *, budget: int = NEAREST_BYTES) -> dict[str, list[Pair]]:
    """Return the distilled images of a sheet, each with its nearest real image, at most five per class and as many as the budget allows.

    The first image of every class comes before the second of any. The real ones are ``folder/<class folder>/<index>.png``; what is missing
    is left out.
    """
    pairs: dict[str, list[Pair]] = {}
    left = budget
    for column in range(MAX_PAIRS):
        for name, pictures in sheet.classes.items():
            file = folder / folders[name] / f"{column:05d}.png"
            if column >= len(pictures) or not file.is_file():
                continue
            real = _checked(file)
            left -= len(real) + len(pictures[column].uri) * 3 // 4
            if left < 0:
                return pairs
            pairs.setdefault(name, []).append(Pair(pictures[column].index, pictures[column].uri, data_uri(real)))
    return pairs


def _checked(file: Path) -> bytes:
    """Return a file's image, encoded anew, so that nothing but pixels enters the page."""
    try:
        return png_of(open_upright(file.read_bytes()).convert("RGB"))
    except ValueError as error:
        raise ResultsError(f"{file} is damaged.", found=str(error), hint="make it again with 'd3hr diagnose'.") from error
