"""What methods may draw on: real images, a prior, a teacher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from d3hr.data import ImageData
from d3hr.errors import SettingsError
from d3hr.evaluation.teachers import Teacher
from d3hr.prior.conditioning import Conditioning, match_classes
from d3hr.prior.model import Prior
from d3hr.staging import write_tensors

Need = Literal["prior", "teacher"]
Space = Literal["pixel", "latent", "teacher"]
SPACES: dict[str, Need | None] = {"pixel": None, "latent": "prior", "teacher": "teacher"}
"""Feature spaces, with what each needs."""


@dataclass(frozen=True)
class Materials:
    """What methods may draw on.

    Attributes:
        images: the real training images.
        image_size: side, in pixels, of the sets to make.
        prior: the diffusion prior.
        teacher: a network trained on all the real images.
        class_map: class -> prior's class, for classes whose names do not match.
    """

    images: ImageData
    image_size: int
    prior: Prior | None = None
    teacher: Teacher | None = None
    class_map: Mapping[str, str] | None = None

    def conditioning(self) -> tuple[Conditioning, ...]:
        """Return the prior's class for each class.

        Raises:
            ClassMismatch: a class matches no class of the prior, or several.
        """
        prior = self.require_prior()
        return match_classes(self.images.class_names, prior.class_names, of=self.images.source, class_map=self.class_map)

    def require_prior(self) -> Prior:
        """Return the prior, or raise :class:`SettingsError`."""
        if self.prior is None:
            raise SettingsError("This needs a diffusion prior.", found="no --prior", do="give one.")
        return self.prior

    def require_teacher(self) -> Teacher:
        """Return the teacher, or raise :class:`SettingsError`."""
        if self.teacher is None:
            raise SettingsError("This needs a teacher.", found="no --teacher", do="give one, or train it: 'd3hr train-teacher'.")
        return self.teacher

    def key(self, *about: object) -> str:
        """Return a short name for a piece of work on these images, prior and teacher."""
        parts = [
            self.images.fingerprint,
            self.prior.fingerprint if self.prior else None,
            self.teacher.fingerprint if self.teacher else None,
            dict(self.class_map or {}),
            self.image_size,
            *about,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    def features(self, class_name: str, space: Space, shared: Path) -> Tensor:
        """Return features float32 [N, F] of a class: pixels in [-1, 1], latents of the prior's autoencoder, or a teacher's embedding.

        Args:
            class_name: the class.
            space: ``pixel``, ``latent`` or ``teacher``.
            shared: folder where latents and embeddings are kept for the next call.
        """
        if space == "pixel":
            sized = self.images.at_size(self.image_size)
            return torch.cat([batch.flatten(1) for batch in sized.batches(class_name)])
        folder = shared / f"features-{space}-{self.key(space)}"
        file = folder / f"{self.images.class_names.index(class_name):06d}.safetensors"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_tensors(file, {"features": self._computed(class_name, space)})
        return load_file(file)["features"]

    def _computed(self, class_name: str, space: Space) -> Tensor:
        if space == "latent":
            prior = self.require_prior()
            sized = self.images.at_size(prior.image_size)
            return torch.cat([prior.encode(batch).flatten(1).float().cpu() for batch in sized.batches(class_name)])
        teacher = self.require_teacher()
        sized = self.images.at_size(teacher.image_size)
        return torch.cat([teacher.embed(batch).float().cpu() for batch in sized.batches(class_name)])

    def data(self) -> dict[str, Any]:
        """Return what a manifest says of the real images."""
        return {"source": self.images.source, "split": self.images.split, "fingerprint": self.images.fingerprint}
