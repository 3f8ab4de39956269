"""A teacher: a network trained on all the real images, whose logits are soft labels.

Its folder holds ``model.safetensors`` and ``teacher.json``: the network's name, its classes in the order of its outputs, the side
and range of its images, how it was trained, and its accuracy on which test images.

Legend: N images, H = W image side, F features, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, TypeAdapter, model_validator
from torch import Tensor

from d3hr.data.codec import resized
from d3hr.data.headers import MAX_PIXELS
from d3hr.errors import ClassMismatch, DataError
from d3hr.evaluation.images import LabelledImages
from d3hr.evaluation.students import Student, new_student
from d3hr.evaluation.training import TEST_BATCH
from d3hr.execution.worker import device_here, name_elsewhere
from d3hr.fileio.atomic import load_if_valid, read_tensors, write_json, write_tensors
from d3hr.fileio.checksums import fingerprint, verify
from d3hr.fileio.names import composed_names
from d3hr.fileio.structured import validated_json
from d3hr.prior.networks import default_device

MAX_SIDE = int(MAX_PIXELS**0.5)
"""Largest side, in pixels, of a teacher's images."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Channels = tuple[Finite, Finite, Finite]
"""A number for each of red, green and blue."""


class _Facts(BaseModel, extra="allow"):
    """What d3hr needs of ``teacher.json``, within bounds; whatever else the file holds is kept."""

    student: str
    class_names: tuple[str, ...] = Field(min_length=2, max_length=100_000)
    image_size: int = Field(ge=1, le=MAX_SIDE)
    mean: Channels | None = None
    std: tuple[Positive, Positive, Positive] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> _Facts:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together")
        return self


_FACTS = TypeAdapter(_Facts)


@dataclass(frozen=True)
class Teacher:
    """A trained network with named classes, in evaluation mode; its weights do not change."""

    network: Student
    student: str
    """Name of the network among the students."""
    class_names: tuple[str, ...]
    """The name of each output."""
    image_size: int
    """Side, in pixels, of the images that it was trained on; it resizes others to it."""
    about: dict[str, Any]
    """How it was trained and what its accuracy is, as JSON values."""
    source: str | None = None
    """The folder it was loaded from, as the user named it."""
    mean: Channels | None = None
    """What its network takes: RGB in [0, 1], less this mean, over ``std``; None is [-1, 1], as d3hr's own."""
    std: Channels | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Weights travel on the CPU: another process has a device of its own, whose number may be another one.
        device = self.device
        network = self.network if device.type == "cpu" else copy.deepcopy(self.network).cpu()
        rest = self.student, self.class_names, self.image_size, self.about, self.source, self.mean, self.std
        return _moved, (name_elsewhere(device), network, *rest)

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None) -> Teacher:
        """Load a teacher from its folder, whose files must be what :meth:`save` wrote."""
        folder = Path(path)
        file = folder / "teacher.json"
        if not file.is_file():
            raise DataError(
                f"{folder} is not a teacher.", found="no teacher.json in it", hint="give a folder written by 'd3hr train-teacher'."
            )
        verify(folder)
        facts = validated_json(file, _FACTS, hint="train it again: 'd3hr train-teacher'.")
        names, side = composed_names(facts.class_names), facts.image_size
        network = new_student(facts.student, len(names), side)
        try:
            network.load_state_dict(read_tensors(folder / "model.safetensors"))
        except (RuntimeError, OSError) as error:
            raise DataError(f"The weights of {folder} do not fit.", found=str(error).splitlines()[0], hint="train it again.") from error
        network.to(device or default_device()).eval()
        return cls(network, facts.student, names, side, facts.model_dump(mode="json"), str(path), facts.mean, facts.std)

    def save(self, folder: Path) -> None:
        """Write the teacher into an existing folder."""
        write_tensors(folder / "model.safetensors", dict(self.network.state_dict()))
        write_json(
            folder / "teacher.json",
            {
                **self.about,
                "student": self.student,
                "class_names": list(self.class_names),
                "image_size": self.image_size,
                "mean": self.mean,
                "std": self.std,
            },
        )

    @property
    def device(self) -> torch.device:
        """Where its network runs."""
        return next(self.network.parameters()).device

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over its name, classes, image side, every weight and, where its inputs are not in [-1, 1], mean and std."""
        own = () if self.mean is None else (self.mean, self.std)
        return fingerprint([self.network], (self.student, self.class_names, self.image_size, *own))

    @torch.no_grad()
    def logits(self, images: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        """Return logits [N, C], on the device of ``images``, of images [N, 3, H, W] in [-1, 1].

        The columns are in the order of ``class_names``, by default the teacher's own.
        """
        logits = torch.cat([self.network(part) for part in self._parts(images)]).to(images.device)
        if class_names is None:
            return logits
        column = {name: index for index, name in enumerate(self.class_names)}
        return logits[:, torch.tensor([column[name] for name in class_names], device=logits.device)]

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Return features [N, F], on the device of ``images``, of images [N, 3, H, W] in [-1, 1]."""
        return torch.cat([self.network.embed(part) for part in self._parts(images)]).to(images.device)

    def soft_labels(self, train: LabelledImages, file: Path | None = None) -> Tensor:
        """Return the logits, float16 [N, C], of all N images of a set as they are; columns in the set's order of classes.

        They are stored in ``file``, as safetensors of one tensor ``logits``; labels stored there are used again, unless damaged.
        """
        stored = None if file is None else load_if_valid(file, read_tensors)
        if stored is not None:
            return stored["logits"]
        batches = torch.arange(len(train.labels)).split(TEST_BATCH)
        logits = torch.cat([self.logits(train.read(positions), train.class_names) for positions in batches]).half()
        if file is not None:
            write_tensors(file, {"logits": logits})
        return logits

    def require_classes(self, class_names: Iterable[str], of: str) -> None:
        """Refuse classes, of what ``of`` names, that are not exactly the teacher's, in whatever order (``ClassMismatch``)."""
        ClassMismatch.unless_same(of, class_names, f"the teacher {self.source or self.student}", self.class_names)

    def _parts(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the images in batches as the network takes them: on its device, at the side and in the range that it was trained on."""
        device = self.device
        return (self._in_range(resized(part, self.image_size)) for part in images.to(device).split(TEST_BATCH))

    def _in_range(self, images: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return images
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        return ((images + 1) / 2 - mean) / std


def _moved(device: str, network: Student, *rest: Any) -> Teacher:
    """Return the teacher that another process has sent, on the device that this process has now."""
    return Teacher(network.to(device_here(device)), *rest)
