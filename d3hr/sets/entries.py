"""What a manifest says of each class of a distilled set."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Sample(BaseModel):
    """The real images of a class from which its statistics come."""

    model_config = ConfigDict(frozen=True)

    images: int = Field(ge=2)
    """How many, drawn at random without replacement."""
    mean_error: float = Field(ge=0)
    """Standard error of the mean, as a share of sigma, root mean square over the dimensions."""
    std_error: float = Field(ge=0)
    """Standard error of the standard deviation, likewise."""


class Source(BaseModel):
    """Where a real image of a set comes from."""

    model_config = ConfigDict(frozen=True)

    image: int = Field(ge=0)
    """The image of the set: its position in the class."""
    name: str
    """The file or row of the data."""
    index: int = Field(ge=0)
    """Position of the real image in the class of the data."""


class ClassEntry(BaseModel):
    """One class of a distilled set."""

    model_config = ConfigDict(frozen=True)

    name: str
    label: int = Field(ge=0)
    """Position of the class in the set's order."""
    folder: str
    """Folder under ``train``, as the class names determine it (:func:`~d3hr.fileio.names.class_folders`)."""
    images: int = Field(ge=0)
    """Distilled images."""
    real_images: int | None = Field(ge=0)
    """Real images of the class."""
    sample: Sample | None = None
    """The sample of them that statistics come from, where that is not all."""
    sources: tuple[Source, ...] = Field(default=(), exclude_if=lambda sources: not sources)
    """The real images that images of the class are, or start from; empty where all are drawn."""
    conditioning_id: int | None = Field(ge=0)
    """Row of the prior's label table, if it has one."""
    prior_class: str | None = None
    """The prior's name of that row, or the prompt for the class; None without a prior."""

    def file(self, folder: Path, index: int) -> Path:
        """Return the file of the image at ``index``."""
        return folder / "train" / self.folder / f"{index:05d}.png"

    def files(self, folder: Path) -> list[Path]:
        """Return the image files of the class in the set at ``folder``."""
        return [self.file(folder, index) for index in range(self.images)]
