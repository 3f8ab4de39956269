"""The ways to make a set that a choice tries, in the order in which they are tried: what measurements favour and what is cheap first."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d3hr.distillation.presets import distill_settings
from d3hr.evaluation.choice import REAL
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from d3hr.pipeline import distill
from d3hr.progress import Progress
from d3hr.sets.distilled_set import DistilledSet


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to make a set: random real images, or a distillation with a preset and settings.

    Attributes:
        name: what tables call it.
        preset: preset of the distillation; empty for random real images.
        options: settings that differ from the preset's.
    """

    name: str
    preset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_random(self) -> bool:
        """Whether it is random real images."""
        return not self.preset

    @property
    def judges_confidence(self) -> bool:
        """Whether networks must say how sure they are of each real image."""
        return not self.is_random and distill_settings(self.preset, **self.options).judges_confidence

    @property
    def draws(self) -> bool:
        """Whether it needs a prior."""
        return not self.is_random and "prior" in distill_settings(self.preset, **self.options).needs

    def make(self, inputs: MethodInputs, out: Path, *, ipc: int, seed: int, shared: Path, progress: Progress) -> DistilledSet:
        """Make a set, or continue where an earlier run was stopped."""
        if self.is_random:
            return METHODS["random_real"].make(inputs, out, ipc=ipc, seed=seed, shared=shared, progress=progress)
        return distill(
            inputs.images,
            inputs.prior,
            out,
            teacher=inputs.teacher,
            ipc=ipc,
            image_size=None if self.draws else inputs.image_size,
            preset=self.preset,
            class_map=inputs.class_map,
            shared=shared,
            progress=progress,
            **{**self.options, "seed": seed},
        )

    def command(self, inputs: MethodInputs, out: str, *, ipc: int, seed: int, flags: tuple[str, ...] = ()) -> str:
        """Return the command that makes the same set; of images in memory the call in Python.

        Args:
            flags: how the images are read.
        """
        if inputs.images.in_memory:
            return self._call(inputs, out, ipc=ipc, seed=seed)
        words = ["d3hr", *(["baseline", "random_real"] if self.is_random else ["distill"]), inputs.images.source, "--out", out]
        words += ["--ipc", str(ipc), "--seed", str(seed), "--hold-out", f"{inputs.images.hold_out:g}", *flags]
        if self.is_random:
            return shlex.join(words)
        words += ["--preset", self.preset]
        if self.draws and inputs.prior is not None:
            words += ["--prior", str(inputs.prior.source)]
        if inputs.teacher is not None and distill_settings(self.preset, **self.options).asks_teacher:
            words += ["--teacher", str(inputs.teacher.source)]
        for name, value in self.options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words)

    def _call(self, inputs: MethodInputs, out: str, *, ipc: int, seed: int) -> str:
        """Return the call that makes the same set, where ``images`` are all images."""
        usual = {"out": out, "ipc": ipc, "seed": seed}
        if self.is_random:
            values, function = {**usual, "image_size": inputs.image_size}, "random_real"
        else:
            asks = inputs.teacher is not None and distill_settings(self.preset, **self.options).asks_teacher
            networks = [*(["prior"] if self.draws else []), *(["teacher"] if asks else [])]
            values, function = {**dict.fromkeys(networks), **usual, "preset": self.preset, **self.options}, "distill"
        words = ", ".join(f"{name}={name if name in ('prior', 'teacher') else repr(value)}" for name, value in values.items())
        return f"d3hr.{function}(images.divided({inputs.images.hold_out:g})[0], {words})"


RANDOM = Candidate(REAL)
CHOSEN = (
    Candidate("groups of the easiest real images", "real", {"keep": "easiest"}),
    Candidate("groups of real images", "real"),
    Candidate("medoids of the easiest real images", "real", {"keep": "easiest", "rule": "centre"}),
    Candidate("medoids of real images", "real", {"rule": "centre"}),
)
"""Real images, chosen without any network of others; on held-out images of CIFAR-10 the first was the best (docs/choosing.md)."""
BY_TEACHER = (
    Candidate("medoids of the easiest, by features", "real", {"keep": "easiest", "rule": "centre", "space": "teacher", "components": 0}),
)
"""What a teacher makes possible."""
DRAWN = (
    Candidate("drawn from five Gaussians per class", "mixture"),
    Candidate("half of them real, half drawn", "mixture", {"candidates": "mixed", "keep": "easiest"}),
    Candidate("real images, denoised from level 5", "real", {"keep": "easiest", "denoising_level": 5}),
)
"""What a prior makes possible."""
PUBLISHED = Candidate("drawn as published", "paper")
"""D3HR's own settings, meant for strong pretrained priors."""
