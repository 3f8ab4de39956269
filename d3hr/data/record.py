"""What is kept of the real images that a set was made from."""

from pydantic import Field

from d3hr.data.codec import Fit
from d3hr.fileio.structured import Record


class DataRecord(Record):
    """What a manifest says of the :class:`~d3hr.data.dataset.ImageData` that a set was made from; nothing without any."""

    source: str | None = None
    in_memory: bool = False
    """Whether the source was an object of a Python program, which cannot be opened again by its name."""
    split: str | None = None
    fingerprint: str | None = None
    images: int | None = Field(default=None, ge=0)
    """How many images they are."""
    skipped: tuple[str, ...] = ()
    duplicates: int = Field(default=0, ge=0)
    """Exact duplicates within a class."""
    keep_duplicates: bool = False
    """Whether these were kept; otherwise they were left out."""
    conflicting_duplicates: int = Field(default=0, ge=0)
    """Pictures that several classes have."""
    hold_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of each class that was left out (:meth:`~d3hr.data.dataset.ImageData.divided`)."""
    fit: Fit = "crop"
    """What became of pictures that are not square."""
