"""A recipe file: a data set, and how a prior is fitted to it, how it is distilled and evaluated; checked as a whole before any work."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from d3hr.distillation.overrides import DistillOverrides, PresetOverrides
from d3hr.errors import SettingsError, settings_error
from d3hr.evaluation.protocols import protocol_names
from d3hr.fileio.structured import read_mapping


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(_Section):
    """Where the images are, and facts about them for planning."""

    source: str = Field(min_length=1)
    """Hub id, or a folder as :func:`d3hr.load_images` takes it."""
    config: str | None = None
    """Configuration of a Hub source that has several."""
    image_column: str | None = None
    """Column of images."""
    label_column: str | None = None
    """Column of classes."""
    split: str = "train"
    """Split that is distilled."""
    test_split: str = "test"
    """Split that students are tested on."""
    class_names: dict[str, str] | None = None
    """Name in the source -> right name, in the order of the labels, for a source whose names are wrong; a source of other names, or in
    another order, is refused."""
    classes: int = Field(ge=2)
    """Number of classes, for planning."""
    train_images: int = Field(ge=1)
    """Images in ``split``, for planning."""
    test_images: int = Field(ge=1)
    """Images in ``test_split``, for planning."""
    image_size: int = Field(ge=1)
    """Side of the images in pixels, for planning; the usual shorter side where they differ."""

    @model_validator(mode="after")
    def _consistent(self) -> DataSection:
        if self.class_names is not None and len(set(self.class_names.values())) != self.classes:
            raise ValueError(f"class_names gives {len(set(self.class_names.values()))} different names to {self.classes} classes")
        if min(self.train_images, self.test_images) < self.classes:
            raise ValueError("every class needs an image in either split")
        return self


class FitSection(_Section):
    """How a pretrained prior is fine-tuned on the data."""

    init: str = Field(min_length=1)
    """Folder or Hub id of the pretrained prior."""
    epochs: int = Field(ge=1)
    """Passes over the images."""
    batch_size: int = Field(ge=1)
    """Images in one step, over all processes."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the networks in training."""
    gradient_checkpointing: bool = False
    """Spend time to save memory."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, order and noise."""

    def steps(self, images: int) -> int:
        """Return the optimiser steps of all epochs over ``images`` images, rounded up to whole steps."""
        return -(-self.epochs * images // self.batch_size)


class DistillSection(PresetOverrides, DistillOverrides):
    """How the data is distilled: a preset, and all settings that differ from it."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """arithmetic of the networks"""


class EvaluateSection(_Section):
    """How the distilled set is evaluated."""

    student: str = "resnet18"
    """Network to train."""
    protocol: str = "paper-hard"
    """Protocol to train it by."""
    soft_protocol: str = "paper-imagenet"
    """Protocol to train it by if a teacher is given."""
    image_size: int = Field(ge=1)
    """Side in pixels that the student sees, in training and in testing."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Training seeds."""

    @field_validator("protocol", "soft_protocol")
    @classmethod
    def _known(cls, name: str) -> str:
        if name.endswith((".yaml", ".yml")):
            return name
        return _one_of(name, protocol_names())


class Recipe(_Section):
    """Everything from a data set to a table of accuracies; the prior is either ``prior``, or the result of ``fit``."""

    data: DataSection
    """The data set."""
    ipc: tuple[int, ...] = Field(min_length=1)
    """Images per class that the recipe covers."""
    prior: str | None = None
    """Folder or Hub id of a prior that is used as it is."""
    class_map: dict[str, str] | None = None
    """Class -> class of the pretrained prior, for names that do not match (see :func:`~d3hr.prior.class_matching.match_classes`)."""
    fit: FitSection | None = None
    """How a prior is fitted."""
    distill: DistillSection
    """How the data is distilled."""
    evaluate: EvaluateSection
    """How the result is evaluated."""

    @model_validator(mode="after")
    def _one_prior(self) -> Recipe:
        if (self.prior is None) == (self.fit is None):
            raise ValueError("either fit or prior is needed, not both")
        if min(self.ipc) < 1 or len(set(self.ipc)) < len(self.ipc):
            raise ValueError("ipc lists different numbers, 1 or more")
        return self

    def require_ipc(self, ipc: int) -> None:
        """Raise :class:`SettingsError` unless the recipe covers ``ipc`` images per class, all different."""
        if ipc not in self.ipc:
            raise SettingsError(
                "The recipe does not cover this number of images per class.",
                found=f"--ipc {ipc}",
                hint=f"use one of: {', '.join(map(str, self.ipc))}; or make that set from its statistics with 'd3hr expand'.",
            )
        self.distill.resolved.model_copy(update={"ipc": ipc}).require_no_copies()

    @property
    def starts_from(self) -> str:
        """The pretrained prior: used as it is, or fine-tuned."""
        return self.fit.init if self.fit else str(self.prior)


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe in a YAML file.

    Raises:
        SettingsError: there is no such file, it is not a YAML mapping, or a field is missing, unknown or out of range; the message names
            file and field.
    """
    hint = "see recipes/cifar10.yaml for a complete one."
    try:
        return Recipe.model_validate(read_mapping(path, "recipe", hint))
    except ValidationError as error:
        raise settings_error(error, f"{path}: ", hint) from None


def _one_of(name: str, known: Collection[str]) -> str:
    if name not in known:
        raise ValueError(f"unknown; use one of: {', '.join(known)}")
    return name
