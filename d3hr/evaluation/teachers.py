"""A network trained on all the real images, whose logits are soft labels, features and a judgement of images.

A teacher's folder holds ``model.safetensors`` and ``teacher.json``: the network's name, its classes in the order of its outputs, the side
of its images, how it was trained, and its accuracy on which test images.

Legend: N images, H = W image side, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, TypeAdapter
from torch import Tensor

from d3hr.data.codec import MAX_PIXELS, resized
from d3hr.errors import ClassMismatch, DataError
from d3hr.evaluation.students import Student, new_student
from d3hr.fileio.atomic import read_tensors, write_json, write_tensors
from d3hr.fileio.checksums import fingerprint, verify
from d3hr.fileio.structured import validated_json
from d3hr.prior.model import default_device


class _Facts(BaseModel):
    """What d3hr needs of ``teacher.json``, within bounds."""

    student: str
    class_names: tuple[str, ...] = Field(min_length=2, max_length=100_000)
    image_size: int = Field(ge=1, le=int(MAX_PIXELS**0.5))


_ABOUT, _FACTS = TypeAdapter(dict[str, Any]), TypeAdapter(_Facts)
BATCH = 500
"""Images that a teacher sees at once."""


@dataclass(frozen=True)
class Teacher:
    """A trained network with named classes; its weights do not change.

    Attributes:
        network: the network, in evaluation mode.
        student: name of the network among the students.
        class_names: the name of each output.
        image_size: side, in pixels, of the images that it was trained on; it resizes others to it.
        about: how it was trained and what its accuracy is, as JSON values.
        source: the folder it was loaded from, as the user named it.
    """

    network: Student
    student: str
    class_names: tuple[str, ...]
    image_size: int
    about: dict[str, Any]
    source: str | None = None

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None) -> Teacher:
        """Load a teacher from its folder.

        Raises:
            DataError: the folder is no teacher, or its weights do not fit what it says.
            ResultsError: ``teacher.json`` is damaged.
            DamagedFile: another file is not what was written.
        """
        folder = Path(path)
        file = folder / "teacher.json"
        if not file.is_file():
            raise DataError(
                f"{folder} is not a teacher.", found="no teacher.json in it", hint="give a folder written by 'd3hr train-teacher'."
            )
        verify(folder)
        about = validated_json(file, _ABOUT, hint="train it again: 'd3hr train-teacher'.")
        facts = validated_json(file, _FACTS, hint="train it again: 'd3hr train-teacher'.")
        names, side = facts.class_names, facts.image_size
        network = new_student(facts.student, len(names), side)
        try:
            network.load_state_dict(read_tensors(folder / "model.safetensors"))
        except (RuntimeError, OSError) as error:
            raise DataError(f"The weights of {folder} do not fit.", found=str(error).splitlines()[0], hint="train it again.") from error
        network.to(device or default_device()).eval()
        return cls(network, facts.student, names, side, about, str(path))

    def save(self, folder: Path) -> None:
        """Write the teacher into an existing folder."""
        write_tensors(folder / "model.safetensors", dict(self.network.state_dict()))
        write_json(
            folder / "teacher.json",
            {**self.about, "student": self.student, "class_names": list(self.class_names), "image_size": self.image_size},
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over its name, classes, image side and every weight."""
        return fingerprint([self.network], (self.student, self.class_names, self.image_size))

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

    def require_classes(self, class_names: Iterable[str], of: str) -> None:
        """Refuse classes, of what ``of`` names, that are not exactly the teacher's, in whatever order.

        Raises:
            ClassMismatch: they differ; the message shows both lists.
        """
        ClassMismatch.unless_same(of, class_names, f"the teacher {self.source or self.student}", self.class_names)

    def _parts(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the images in batches, on the device of the network and at the side that it was trained on."""
        device = next(self.network.parameters()).device
        return (resized(part, self.image_size) for part in images.to(device).split(BATCH))
