"""Models of settings that may be left out, derived from :class:`~d3hr.distillation.settings.DistillSettings`.

They are the flags of commands, the settings of methods and a section of recipes. A setting that is declared once is in all of them.
"""

from collections.abc import Callable, Collection
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from d3hr.distillation.presets import PRESETS, DistillOptions, ExpandOptions, distill_settings
from d3hr.distillation.settings import DistillSettings
from d3hr.errors import SettingsError

M = TypeVar("M", bound=BaseModel)


def with_fields_of(source: type[BaseModel], names: Collection[str], *, optional: bool = True) -> Callable[[type[M]], type[M]]:
    """Return a class decorator that adds fields of one model to another, with their types and documentation.

    Fields that the decorated class declares itself are not added. ``optional`` makes the others optional, None by default; otherwise they
    keep the defaults of ``source``. Bounds and contradictions are checked when the values are put together in ``source``.
    """

    def extended(model: type[M]) -> type[M]:
        fields: dict[str, Any] = {}
        for name, field in source.model_fields.items():
            if name in names and name not in model.model_fields:
                kind: Any = field.annotation
                default = None if optional else field.default
                fields[name] = (kind | None if optional else kind, Field(default=default, description=field.description))
        return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **fields)

    return extended


class Overrides(BaseModel):
    """Settings of a distillation that differ from others, such as a preset's; None is no difference."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def options(self) -> dict[str, Any]:
        """The settings that differ, as :class:`~d3hr.distillation.settings.DistillOptions`."""
        return {name: value for name, value in self if name in DistillOptions.__annotations__ and value is not None}


@with_fields_of(DistillSettings, DistillOptions.__annotations__)
class DistillOverrides(Overrides):
    """Settings of the distillation: those that differ from the preset's."""

    level: int | Literal["auto"] | None = None
    """level of statistics and of denoising, both; auto measures normality on a sample and says why"""
    batch_size: int | Literal["auto"] | None = None
    """images in one network call; auto measures which size makes the most images per second"""


NO_CHANGES = DistillOverrides()


@with_fields_of(DistillSettings, ExpandOptions.__annotations__)
class ExpandOverrides(Overrides):
    """Settings of grouping and denoising: those that differ from the set's."""


AS_THE_SET = ExpandOverrides()


class PresetOverrides(Overrides):
    """A preset, and the settings that differ from it; None is the preset's. They are checked when they are put together."""

    fixed: ClassVar[DistillOptions] = {}
    """Settings that always have these values."""

    preset: str = "paper"
    """the preset that the other settings are changes to"""

    @field_validator("preset")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in PRESETS:
            raise ValueError(f"unknown; use one of: {', '.join(PRESETS)}")
        return name

    @property
    def resolved(self) -> DistillSettings:
        """The settings of a distillation: the preset's with these changes."""
        return distill_settings(self.preset, **{**self.options, **self.fixed})

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            _ = self.resolved
        except SettingsError as error:
            raise ValueError(error.what.rstrip(".") + (f" ({error.found})" if error.found else "")) from None
        return self
