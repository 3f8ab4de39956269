"""``d3hr inspect``: what is in a data set."""

from __future__ import annotations

from d3hr.commands.reading import BadImage, Reading
from d3hr.commands.result import Result
from d3hr.progress import OnTerminal


def inspect(
    data: str,
    *,
    split: str | None = None,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Result:
    """Read every image once and say what is there: classes, counts, sizes, files that cannot be read.

    Args:
        data: folder of class folders, folder of parquet files, Hub id, or digits
        split: train, validation, test, ...; train by default
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
    """
    images = Reading(on_bad_image, image_column, label_column, OnTerminal()).load(data, split)
    values = {
        "source": images.source,
        "split": images.split,
        "images": len(images),
        "classes": images.counts,
        "sizes": {f"{width}x{height}": count for (width, height), count in sorted(images.sizes.items())},
        "skipped": list(images.skipped),
        "ignored": list(images.ignored),
        "fingerprint": images.fingerprint,
    }
    return Result("\n".join(f"{count:>9,}  {name}" for name, count in images.counts.items()), values)
